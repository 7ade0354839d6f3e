"""Cleaned flow -> a mesh per section, block by block along z; then one frame for all blocks.

    block 0          block 1          block 2
    a -- . -- . -- b -- . -- . -- c -- . -- . -- d      every block is a chain of its own, its
    start          start          start                 first section at rest

The mesh of b in block 0 says where block 1 begins; so starts are composed one after the other
(one step per block), and every section gets its own mesh followed by what is left of
its block's start (`kernels.mesh.decay`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.mesh.chain import ChainSettings, solve_chain
from warpbeam.kernels.mesh.decay import Decay
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.transforms.align.frame import (
    Frame,
    chained_uri,
    clean_uri,
    load_frame,
    mesh_uri,
    work_uri,
)
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields, store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder

Field = Float[np.ndarray, "c y x"]


@dataclass(frozen=True)
class MeshSettings:
    """How sections become sheets.

    Attributes:
        bending_px: see `kernels.mesh.bending`.
        spring: see `kernels.mesh.springs`.
        block: sections of a block.
        chain: when a section counts as solved.
        skipped: sections that serve nobody as a reference.
    """

    bending_px: float
    spring: float
    block: int
    chain: ChainSettings
    skipped: tuple[int, ...] = ()

    def elasticity(self, frame: Frame) -> Elasticity:
        return Elasticity(frame.lattice.stride, spring=self.spring, bending_px=self.bending_px)


@dataclass(frozen=True)
class Block:
    """Consecutive sections of one chain; `first` is at rest, and the last one of the block before.

    `sections` are in the order in which they are solved, `first` in front.
    """

    first: int
    last: int
    sections: tuple[int, ...]


def bad_sections(
    known: Mapping[int, Sequence[float]], reaches: Sequence[int], least: float
) -> list[int]:
    """Sections that hardly any flow leads from or to: blank, lost or torn ones.

    Args:
        known: per section the shares of its nodes with a vector, one for each of `reaches`.
        reaches: distances to the sections that those lead to.
        least: share that counts as connected.
    """
    joined = set()
    for section, shares in known.items():
        for reach, share in zip(reaches, shares, strict=True):
            if share >= least:
                joined |= {section, section - reach}
    return [section for section in known if section not in joined]


def blocks_of(sections: Sequence[int], bad: Sequence[int], length: int) -> list[Block]:
    """Blocks of about `length` sections that begin and end with good ones.

    None where no section is good.
    """
    good = [s for s in sections if s not in set(bad)]
    if not good:
        return []
    starts = [good[0]]
    for section in good:
        if section - starts[-1] >= length and good[-1] - section >= length // 2:
            starts.append(section)
    ends = [*starts[1:], sections[-1]]
    found = []
    for number, (first, last) in enumerate(zip(starts, ends, strict=True)):
        inside = [s for s in sections if first <= s <= last]
        before = [s for s in sections if s < first] if number == 0 else []
        found.append(Block(first, last, (*inside, *before)))
    return found


def list_blocks(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> Iterator[Unit]:
    """A unit per block.

    Payload: a fingerprint of its flows, its sections in order, those to skip, and whether
    the block is the first one; None, for all sections, where nothing can be aligned.
    """
    frame = load_frame(run)
    marks = cleaned.done()
    known = {key[0]: record["known"] for key, record in cleaned.records()}
    reaches = (*frame.settings.gaps, *frame.settings.bridges)
    bad = {*bad_sections(known, reaches, settings.chain.least_known), *settings.skipped}
    by_section = {int(name.lstrip("[").split(",")[0]): mark for name, mark in marks.items()}
    blocks = blocks_of(sorted(known), sorted(bad), settings.block)
    if not blocks:
        yield RunKey(min(known), max(known)), None
    for number, block in enumerate(blocks):
        inside = digest([by_section[s] for s in sorted(block.sections)])
        skipped = sorted(bad & set(block.sections))
        payload = [inside, list(block.sections), skipped, number == 0]
        yield RunKey(block.first, block.last), payload


class RelaxBlock:
    """Work of the stage `mesh`: the chain of one block.

    Writes the mesh of each section but the first (that of the block before, or at rest).
    """

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: RunKey, payload: Any) -> Record:
        if payload is None:
            raise _nothing_to_align(key)
        _, sections, skipped, leading = payload
        frame = load_frame(self._run)
        flows = self._flows(frame, sections)
        solved = solve_chain(
            sections,
            flows,
            self._settings.elasticity(frame),
            self._settings.chain,
            starts={sections[0]: np.zeros((2, *frame.lattice.shape))},
            skipped=skipped,
        )
        target, written, rows = fields.load(mesh_uri(self._run)), 0, []
        for section, found in solved.items():
            if section == sections[0] and not leading:
                continue  # it ends the block before
            offsets = np.nan_to_num(found.offsets)
            written += target.write(frame.nodes(frame.z(section), (2,)), offsets[:, None])
            rows.append(
                {
                    "section": section,
                    "status": found.status.value,
                    "references": list(found.references),
                    "residual_px": None if np.isnan(found.scale_px) else found.scale_px,
                    "known": found.known,
                }
            )
        return {"bytes_written": written, "sections": rows}

    def _flows(self, frame: Frame, sections: Sequence[int]) -> dict[tuple[int, int], Field]:
        stored = fields.load(clean_uri(self._run))
        reaches = (*frame.settings.gaps, *frame.settings.bridges)
        inside, flows = set(sections), {}
        for section in sections:
            nodes = frame.nodes(frame.z(section), (len(reaches), 2))
            vectors = stored.read(nodes)[:, :, 0].astype(np.float64)
            for reach, flow in zip(reaches, vectors, strict=True):
                if section - reach in inside and np.isfinite(flow[0]).any():
                    flows[section, section - reach] = flow
        return flows


def _nothing_to_align(sections: RunKey) -> InputError:
    return InputError(
        "no section resembles another one",
        where=f"sections {sections.first} to {sections.last}",
        expected="flow between neighbours on a tenth of the nodes (mesh.least_known)",
        got="hardly any",
        fix="look at the sections; try other flow.patch_px, flow.search_px, flow.scales",
    )


def one_start(meshes: Ledger) -> Iterator[Unit]:
    """The single unit; its payload changes whenever any block was solved anew."""
    yield ("starts",), digest(sorted(meshes.done().items()))


def starts_uri(run: RunFolder) -> str:
    """`[block, component, y, x]`: the mesh of each block's first section in the common frame."""
    return store.join(work_uri(run), "starts.zarr")


class ComposeStarts:
    """Work of the stage `starts`: where each block begins."""

    def __init__(self, run: RunFolder, meshes: Ledger, settings: MeshSettings) -> None:
        self._run, self._meshes, self._settings = run, meshes, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        frame = load_frame(self._run)
        blocks = [RunKey(*name) for name, _ in self._meshes.records()]
        decay = Decay(frame.lattice, self._settings.elasticity(frame), frame.settings.gaps)
        shape = (2, *frame.lattice.shape)
        store.delete_prefix(starts_uri(self._run) + "/")
        target = fields.create(starts_uri(self._run), (len(blocks), *shape), (1, *shape))
        start = np.zeros(shape)
        for number, block in enumerate(blocks):
            whole = Box((number, 0, 0, 0), (number + 1, *shape))
            target.write(whole, start[None])
            faded = next(islice(decay.follow(start), block.last - block.first, None))
            start = _followed(frame, _mesh(self._run, frame, block.last), faded)
        return {"blocks": [list(block) for block in blocks]}


def list_chains(meshes: Ledger, starts: Ledger) -> Iterator[Unit]:
    """A unit per block; the payload is its number, and what the starts depend on."""
    marks = digest(sorted(starts.done().items()))
    for number, (key, record) in enumerate(meshes.records()):
        sections = [row["section"] for row in record["sections"]]
        yield RunKey(*key), [marks, number, sections]


class ChainBlock:
    """Work of the stage `chain`: the meshes of a block in the common frame."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: RunKey, payload: Any) -> Record:
        _, number, sections = payload
        frame = load_frame(self._run)
        shape = (2, *frame.lattice.shape)
        start = (
            fields.load(starts_uri(self._run))
            .read(Box((number, 0, 0, 0), (number + 1, *shape)))[0]
            .astype(np.float64)
        )
        decay = Decay(frame.lattice, self._settings.elasticity(frame), frame.settings.gaps)
        faded = dict(zip(range(key.first, key.last + 1), decay.follow(start), strict=False))
        target, written, shifts = fields.load(chained_uri(self._run)), 0, []
        for section in sections:
            mesh = _mesh(self._run, frame, section)
            offsets = _followed(frame, mesh, faded[max(section, key.first)])
            written += target.write(frame.nodes(frame.z(section), (2,)), offsets[:, None])
            shifts.append([section, *offsets.reshape(2, -1).mean(axis=1).tolist()])
        return {"bytes_written": written, "shifts": shifts}


def _mesh(run: RunFolder, frame: Frame, section: int) -> Field:
    nodes = frame.nodes(frame.z(section), (2,))
    return fields.load(mesh_uri(run)).read(nodes)[:, 0].astype(np.float64)


def _followed(frame: Frame, mesh: Field, start: Field) -> Field:
    """A mesh, then its block's start."""
    first, second = (on_lattice(u, frame.lattice) for u in (mesh, start))
    return compose(first, second, outside="nearest").u
