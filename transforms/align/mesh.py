"""Cleaned flow -> a mesh per section, block by block along z; then one frame for all blocks.

    block 0   a -- . -- . -- . -- .
    block 1             b -- . -- . -- . -- . -- .      each block is a chain of its own, its
    block 2                            c -- . -- . --   first section at rest

Blocks overlap by a few sections, which belong to the earlier one, so that a chain is under way when
its own sections begin. The mesh of b in block 0 says about where block 1 begins, behind what is
left there of the start of block 0 (`kernels.mesh.decay`); so starts are composed one after the
other, one step per block. Then all blocks are solved again from those, in one frame; by what they
still differ where they overlap (a fraction of a pixel, affine), the later ones are moved.
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
from warpbeam.kernels.mesh.chain import ChainSettings, Section, solve_chain
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


def _units(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> list[Unit]:
    """A unit per block of a stack.

    Payload: a fingerprint of its flows, its sections in order, those to skip, its own.
    """
    frame = load_frame(run)
    known = {key[0]: record["known"] for key, record in cleaned.records()}
    marks = {key[0]: mark for key, mark in cleaned.marks().items()}
    reaches = (*frame.settings.gaps, *frame.settings.bridges)
    bad = {*bad_sections(known, reaches, settings.chain.least_known), *settings.skipped}
    units: list[Unit] = []
    for block in blocks_of(sorted(known), sorted(bad), settings.block):
        inside = digest([marks[s] for s in sorted(block.sections)])
        skipped = sorted(bad & set(block.sections))
        payload = [inside, list(block.sections), skipped, list(block.own)]
        units.append((RunKey(block.first, block.last), payload))
    return units


def list_blocks(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> Iterator[Unit]:
    """A unit per block that another one follows."""
    yield from _units(run, cleaned, settings)[:-1]


def list_chains(
    run: RunFolder, cleaned: Ledger, starts: Ledger, settings: MeshSettings
) -> Iterator[Unit]:
    """A unit per block.

    Payload: as in `list_blocks`, and the number of the block, the first section of the next one
    (or None), and a fingerprint of the starts.
    """
    units = _units(run, cleaned, settings)
    following = [*(key[0] for key, _ in units[1:]), None]
    marks = starts.fingerprint()
    for number, (key, payload) in enumerate(units):
        yield key, [*payload, number, following[number], marks]


class _Chains:
    """Solves blocks."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def _solved(self, frame: Frame, payload: Any, start: Field) -> dict[int, Section]:
        _, sections, skipped, *_ = payload
        return solve_chain(
            sections,
            self._flows(frame, sections),
            self._settings.elasticity(frame),
            self._settings.chain,
            starts={sections[0]: start},
            skipped=skipped,
        )

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


class RelaxBlock(_Chains):
    """Work of the stage `mesh`: the chain of one block, its first section at rest.

    Writes the meshes of its own sections, with what pulls at their nodes.
    """

    def __call__(self, key: RunKey, payload: Any) -> Record:
        frame = load_frame(self._run)
        solved = self._solved(frame, payload, np.zeros((2, *frame.lattice.shape)))
        target, written = fields.load(mesh_uri(self._run)), 0
        for section in payload[3]:
            found = solved[section]
            pull = np.zeros(frame.lattice.shape) if found.pull is None else found.pull
            whole = np.concatenate([np.nan_to_num(found.offsets), pull[None]])
            written += target.write(frame.nodes(frame.z(section), (3,)), whole[:, None])
        return {"bytes_written": written, "own": payload[3]}


def one_start(
    run: RunFolder, cleaned: Ledger, meshes: Ledger, settings: MeshSettings
) -> Iterator[Unit]:
    """The single unit. Payload: a fingerprint of the meshes, and the blocks."""
    keys = [key for key, _ in _units(run, cleaned, settings)]
    yield ("starts",), [meshes.fingerprint(), keys]


def starts_uri(run: RunFolder) -> str:
    """`[block, component, y, x]`: about the mesh of each block's first section."""
    return store.join(work_uri(run), "starts.zarr")


class ComposeStarts:
    """Work of the stage `starts`: where each block begins."""

    def __init__(self, run: RunFolder, meshes: Ledger, settings: MeshSettings) -> None:
        self._run, self._meshes, self._settings = run, meshes, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        blocks = [RunKey(*block) for block in payload[1]]
        if not blocks:
            raise _nothing_to_align()
        frame = load_frame(self._run)
        own = {name: record["own"] for name, record in self._meshes.records()}
        shape = (2, *frame.lattice.shape)
        store.delete_prefix(starts_uri(self._run) + "/")
        target = fields.create(starts_uri(self._run), (len(blocks), *shape), (1, *shape))
        start = np.zeros(shape)
        for number, block in enumerate(blocks):
            if number:
                before = blocks[number - 1]
                decay = _decay(self._run, frame, self._settings, own[tuple(before)])
                faded = next(islice(decay.follow(start), block.first - before.first, None))
                start = _followed(frame, _mesh(self._run, frame, block.first), faded)
            target.write(_at(number, shape), start[None])
        return {"blocks": len(blocks)}


class ChainBlock(_Chains):
    """Work of the stage `chain`: the chain of one block from its start.

    Writes the meshes of its own sections, and finds by what the next block's start is off.
    """

    def __call__(self, key: RunKey, payload: Any) -> Record:
        *_, own, number, following, _marks = payload
        frame = load_frame(self._run)
        solved = self._solved(frame, payload, self._start(frame, number))
        target, written, rows = fields.load(chained_uri(self._run)), 0, []
        for section in own:
            found = solved[section]
            offsets = np.nan_to_num(found.offsets)
            written += target.write(frame.nodes(frame.z(section), (2,)), offsets[:, None])
            rows.append(
                {
                    "section": section,
                    "status": found.status.value,
                    "references": list(found.references),
                    "residual_px": None if np.isnan(found.scale_px) else found.scale_px,
                    "known": found.known,
                    "shift": offsets.reshape(2, -1).mean(axis=1).tolist(),
                }
            )
        off = np.zeros((2, 3))
        if following is not None:
            off = _affine_part(frame, solved[following], self._start(frame, number + 1))
        return {"bytes_written": written, "sections": rows, "off": off.tolist()}

    def _start(self, frame: Frame, number: int) -> Field:
        box = _at(number, (2, *frame.lattice.shape))
        return fields.load(starts_uri(self._run)).read(box)[0].astype(np.float64)


def _affine_part(frame: Frame, solved: Section, start: Field) -> Float[np.ndarray, "2 3"]:
    """The best affine map, rows for y and x and columns for 1, y and x, of the difference between
    a mesh and where it was taken to be, by what pulls at the nodes."""
    y, x = frame.lattice.nodes().reshape(2, -1)
    apart = (np.nan_to_num(solved.offsets) - start).reshape(2, -1)
    pull = np.ones(y.shape) if solved.pull is None else solved.pull.ravel()
    terms = np.stack([np.ones_like(y), y, x], axis=1) * np.sqrt(pull)[:, None]
    return np.linalg.lstsq(terms, (apart * np.sqrt(pull)).T, rcond=None)[0].T


def _at(number: int, shape: Sequence[int]) -> Box:
    return Box((number, *(0 for _ in shape)), (number + 1, *shape))


def _nothing_to_align() -> InputError:
    return InputError(
        "no section resembles another one",
        where="all sections",
        expected="flow between neighbours on a tenth of the nodes (mesh.least_known)",
        got="hardly any",
        fix="look at the sections; try other flow.patch_px, flow.search_px, flow.scales",
    )


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
