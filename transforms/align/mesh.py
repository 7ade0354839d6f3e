"""Cleaned flow -> a mesh per section, block by block along z; then one frame for all blocks.

    block 0   a -- . -- . -- . -- .
    block 1             b -- . -- . -- . -- . -- .      each block is a chain of its own, its
    block 2                            c -- . -- . --   first section at rest

Blocks overlap by a few sections, which belong to the earlier one, so that a chain is under way when
its own sections begin. The mesh of b in block 0 says where block 1 begins; so starts are
composed one after the other (one step per block), and every section gets its own mesh followed by
what is left of its block's start (`kernels.mesh.decay`).
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

_LEAD = 6  # sections that a block begins earlier than its own


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
    """Consecutive sections of one chain; `first` is at rest.

    Attributes:
        first, last: numbers of its sections.
        sections: in the order in which they are solved, `first` in front.
        own: those whose meshes count; the others are the block before's.
    """

    first: int
    last: int
    sections: tuple[int, ...]
    own: tuple[int, ...]


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
    """Blocks of about `length` sections whose first and last ones are good, and of which each
    begins a few sections before the one before ends.

    None where no section is good.
    """
    good = [s for s in sections if s not in set(bad)]
    if not good:
        return []
    borders = [good[0]]
    for section in good:
        if section - borders[-1] >= length and good[-1] - section >= length // 2:
            borders.append(section)
    found = []
    for number, border in enumerate(borders):
        last = borders[number + 1] if border != borders[-1] else sections[-1]
        lead = [s for s in good if border - min(_LEAD, length - 1) <= s <= border]
        first = lead[0] if number else border
        inside = [s for s in sections if first <= s <= last]
        before = [s for s in sections if s < first] if number == 0 else []
        own = [s for s in (*inside, *before) if number == 0 or s > border]
        found.append(Block(first, last, (*inside, *before), tuple(own)))
    return found


def list_blocks(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> Iterator[Unit]:
    """A unit per block.

    Payload: a fingerprint of its flows, its sections in order, those to skip, and those whose
    meshes it writes; None, for all sections, where nothing can be aligned.
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
    for block in blocks:
        inside = digest([by_section[s] for s in sorted(block.sections)])
        skipped = sorted(bad & set(block.sections))
        payload = [inside, list(block.sections), skipped, list(block.own)]
        yield RunKey(block.first, block.last), payload


class RelaxBlock:
    """Work of the stage `mesh`: the chain of one block.

    Writes the meshes of its own sections.
    """

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: RunKey, payload: Any) -> Record:
        if payload is None:
            raise _nothing_to_align(key)
        _, sections, skipped, own = payload
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
        for section in own:
            found = solved[section]
            pull = np.zeros(frame.lattice.shape) if found.pull is None else found.pull
            whole = np.concatenate([np.nan_to_num(found.offsets), pull[None]])
            written += target.write(frame.nodes(frame.z(section), (3,)), whole[:, None])
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
        own = [[row["section"] for row in r["sections"]] for _, r in self._meshes.records()]
        shape = (2, *frame.lattice.shape)
        store.delete_prefix(starts_uri(self._run) + "/")
        target = fields.create(starts_uri(self._run), (len(blocks), *shape), (1, *shape))
        start = np.zeros(shape)
        for number, block in enumerate(blocks):
            if number:
                before = blocks[number - 1]
                decay = _decay(self._run, frame, self._settings, own[number - 1])
                faded = next(islice(decay.follow(start), block.first - before.first, None))
                start = _followed(frame, _mesh(self._run, frame, block.first), faded)
            target.write(Box((number, 0, 0, 0), (number + 1, *shape)), start[None])
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
        decay = _decay(self._run, frame, self._settings, sections)
        faded = dict(zip(range(key.first, key.last + 1), decay.follow(start), strict=False))
        target, written, shifts = fields.load(chained_uri(self._run)), 0, []
        for section in sections:
            mesh = _mesh(self._run, frame, section)
            offsets = _followed(frame, mesh, faded[max(section, key.first)])
            written += target.write(frame.nodes(frame.z(section), (2,)), offsets[:, None])
            shifts.append([section, *offsets.reshape(2, -1).mean(axis=1).tolist()])
        return {"bytes_written": written, "shifts": shifts}


def _decay(run: RunFolder, frame: Frame, settings: MeshSettings, sections: Sequence[int]) -> Decay:
    """How starts fade in a block, by what pulls at its nodes on average."""
    stored, pull, count = fields.load(mesh_uri(run)), np.zeros(frame.lattice.shape), 0
    for section in sections:
        here = stored.read(frame.nodes(frame.z(section), (3,)))[2, 0]
        if here.any():
            pull, count = pull + here, count + 1
    mean = pull / count if count else np.ones(frame.lattice.shape)
    return Decay(frame.lattice, settings.elasticity(frame), frame.settings.gaps, mean)


def _mesh(run: RunFolder, frame: Frame, section: int) -> Field:
    nodes = frame.nodes(frame.z(section), (3,))
    return fields.load(mesh_uri(run)).read(nodes)[:2, 0].astype(np.float64)


def _followed(frame: Frame, mesh: Field, start: Field) -> Field:
    """A mesh, then its block's start."""
    first, second = (on_lattice(u, frame.lattice) for u in (mesh, start))
    return compose(first, second, outside="nearest").u
