"""Cleaned flow -> a mesh per section, block by block along z; then one frame for all blocks.

    block 0   a -- . -- . -- . -- . -- .
    block 1             b -- b -- . -- . -- . -- . -- .      each block is a chain of its own, its
    block 2                            c -- c -- . -- . --   first section at rest

Blocks overlap by a few sections, which belong to the earlier one, so that a chain is under way when
its own sections begin. The meshes of the b in block 0 say about where block 1 begins, behind what
is left there of the start of block 0 (`kernels.mesh.decay`); so starts are composed one after the
other, one step per block. Then all blocks are solved again from those, in one frame, and
`transforms.align.join` brings together what still differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.mesh.chain import ChainSettings, Section, solve_chain
from warpbeam.kernels.mesh.decay import Decay
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.transforms.align.cut import load_cuts
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


def blocks_of(
    sections: Sequence[int], bad: Sequence[int], length: int, cracked: Collection[int] = ()
) -> list[Block]:
    """Blocks of about `length` sections whose first and last ones are good, and of which each
    begins a few sections before the one before ends.

    Empty where no section is good. All of them lie as the very first does, at rest: it is none of
    the `cracked` ones, unless all are, and those before it follow it.
    """
    good = [s for s in sections if s not in set(bad)]
    if not good:
        return []
    borders = [next((s for s in good if s not in cracked), good[0])]
    for section in good:
        if section - borders[-1] >= length and good[-1] - section >= length // 2:
            borders.append(section)
    found = []
    for number, border in enumerate(borders):
        last = borders[number + 1] if border != borders[-1] else sections[-1]
        lead = [s for s in good if border - min(_LEAD, length - 1) <= s <= border]
        first = lead[0] if number else border
        inside = [s for s in sections if first <= s <= last]
        before = [s for s in reversed(sections) if s < first] if number == 0 else []
        own = [s for s in (*inside, *before) if number == 0 or s > border]
        found.append(Block(first, last, (*inside, *before), tuple(own)))
    return found


def _units(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> list[Unit]:
    """A unit per block of a stack.

    Payload: a fingerprint of its flows, its sections in order, those to skip, its own.
    """
    frame = load_frame(run)
    records = {key[0]: record for key, record in cleaned.records()}
    known = {section: record["known"] for section, record in records.items()}
    cracked = [section for section, record in records.items() if record["cut"]]
    marks = {key[0]: mark for key, mark in cleaned.marks().items()}
    reaches = (*frame.settings.gaps, *frame.settings.bridges)
    bad = {*bad_sections(known, reaches, settings.chain.least_known), *settings.skipped}
    units: list[Unit] = []
    for block in blocks_of(sorted(known), sorted(bad), settings.block, cracked):
        inside = digest([marks[s] for s in sorted(block.sections)])
        skipped = sorted(bad & set(block.sections))
        payload = [inside, list(block.sections), skipped, list(block.own)]
        units.append((RunKey(block.first, block.last), payload))
    return units


def list_blocks(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> Iterator[Unit]:
    """A unit per block that another one follows."""
    yield from _units(run, cleaned, settings)[:-1]


def list_chains(
    run: RunFolder, cleaned: Ledger, starts: Ledger, settings: MeshSettings, turn: int
) -> Iterator[Unit]:
    """A unit per block; in later turns only those whose start was not exact before.

    Payload: as in `list_blocks`, and the number of the block and a fingerprint of the starts.
    """
    marks = starts.fingerprint()
    for number, (key, payload) in enumerate(_units(run, cleaned, settings)):
        if turn == 0 or number > turn:
            yield key, [*payload, number, marks]


class _Chains:
    """Solves blocks from the meshes of their first sections."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def _solved(
        self, frame: Frame, payload: Any, starts: Mapping[int, Field]
    ) -> dict[int, Section]:
        _, sections, skipped, *_ = payload
        cuts = load_cuts(self._run, frame, sections)
        return solve_chain(
            sections,
            self._flows(frame, sections),
            self._settings.elasticity(frame),
            self._settings.chain,
            active={section: ~cut for section, cut in cuts.items()},
            starts=starts,
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
        return flows | self._back(frame, flows, sections[0])

    @staticmethod
    def _back(
        frame: Frame, flows: Mapping[tuple[int, int], Field], first: int
    ) -> dict[tuple[int, int], Field]:
        """The flows of the sections before the first to later ones."""
        return {
            (before, later): invert(on_lattice(flow, frame.lattice)).u
            for (later, before), flow in flows.items()
            if before < first
        }


class RelaxBlock(_Chains):
    """Work of the stage `mesh`: the chain of one block, its first section at rest.

    Writes the meshes of its own sections, with what pulls at their nodes.
    """

    def __call__(self, key: RunKey, payload: Any) -> Record:
        frame = load_frame(self._run)
        solved = self._solved(frame, payload, {})
        target = fields.load(mesh_uri(self._run))
        written = sum(_store(target, frame, section, solved[section]) for section in payload[3])
        return {"bytes_written": written, "own": payload[3]}


def one_start(
    run: RunFolder, cleaned: Ledger, meshes: Ledger, settings: MeshSettings
) -> Iterator[Unit]:
    """The single unit.

    Payload: a fingerprint of the meshes, and see `blocks_in_turn`.
    """
    yield ("starts",), [meshes.fingerprint(), blocks_in_turn(run, cleaned, settings)]


def blocks_in_turn(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> list[list[Any]]:
    """Of each block its first section, its own ones, and those that it begins with."""
    frame, units = load_frame(run), _units(run, cleaned, settings)
    return [[p[1][0], p[3], _beginning(frame, p[1], p[3])] for _, p in units]


def _beginning(frame: Frame, sections: Sequence[int], own: Sequence[int]) -> list[int]:
    """The sections that a block begins with, all of the block before: as many as a section looks
    back for references, so that the chain goes on as if it had never ended."""
    reach = max(*frame.settings.gaps, *frame.settings.bridges, 1)
    return [s for s in sections[:reach] if s not in set(own)]


def starts_uri(run: RunFolder, turn: int) -> str:
    """`[block, index, component, y, x]`: about the meshes of each block's first sections."""
    return store.join(work_uri(run), f"starts_{turn}.zarr")


class Starts:
    """The meshes that blocks begin with in one turn."""

    def __init__(self, run: RunFolder, frame: Frame, turn: int) -> None:
        self._uri, self._shape = starts_uri(run, turn), (2, *frame.lattice.shape)

    def create(self, blocks: int) -> None:
        """Makes the array, empty."""
        store.delete_prefix(self._uri + "/")
        chunk = (1, 1, *self._shape)
        fields.create(self._uri, (blocks, _LEAD + 1, *self._shape), chunk)

    def write(self, block: int, meshes: Sequence[Field]) -> None:
        target = fields.load(self._uri)
        for index, mesh in enumerate(meshes):
            target.write(self._box(block, index), mesh[None, None])

    def read(self, block: int, index: int = 0) -> Field:
        """The mesh of one of the first sections; the first block begins at rest."""
        if block == 0:
            return np.zeros(self._shape)
        found = fields.load(self._uri).read(self._box(block, index))
        return found[0, 0].astype(np.float64)

    def _box(self, block: int, index: int) -> Box:
        zeros = (0,) * len(self._shape)
        return Box((block, index, *zeros), (block + 1, index + 1, *self._shape))


class ComposeStarts:
    """Work of the stage `starts`: where each block begins."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        _, blocks = payload
        if not blocks:
            raise _nothing_to_align()
        frame, meshes = load_frame(self._run), fields.load(mesh_uri(self._run))
        starts = Starts(self._run, frame, 0)
        starts.create(len(blocks))
        for number in range(1, len(blocks)):
            first, own, _ = blocks[number - 1]
            begin = blocks[number][2]
            decay = decay_of(meshes, frame, self._settings, own)
            steps = slice(begin[0] - first, begin[-1] - first + 1)
            faded = list(decay.part(starts.read(number - 1), steps))
            there = [
                _followed(frame, read_mesh(meshes, frame, s), faded[s - begin[0]]) for s in begin
            ]
            starts.write(number, there)
        return {"blocks": len(blocks)}


class ChainBlock(_Chains):
    """Work of the stage `chain`: the chain of one block from its start of this turn.

    Writes the meshes of its own sections, with what pulls at their nodes.
    """

    def __init__(self, run: RunFolder, settings: MeshSettings, turn: int) -> None:
        super().__init__(run, settings)
        self._turn = turn

    def __call__(self, key: RunKey, payload: Any) -> Record:
        *_, own, number, _marks = payload
        frame = load_frame(self._run)
        begin, starts = _beginning(frame, payload[1], own), Starts(self._run, frame, self._turn)
        given = {section: starts.read(number, index) for index, section in enumerate(begin)}
        solved = self._solved(frame, payload, given)
        target, written, rows = fields.load(chained_uri(self._run)), 0, []
        for section in own:
            found = solved[section]
            written += _store(target, frame, section, found)
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


def _store(target: fields.FieldArray, frame: Frame, number: int, section: Section) -> int:
    """Keeps a mesh; in cracks it is spanned between what lies around them."""
    pull = np.zeros(frame.lattice.shape) if section.pull is None else section.pull
    mesh = on_lattice(section.offsets, frame.lattice)
    offsets = fill_missing(mesh, outside="nearest", empty=0.0).u
    whole = np.concatenate([offsets, pull[None]])
    return target.write(frame.nodes(frame.z(number), (3,)), whole[:, None])


def _nothing_to_align() -> InputError:
    return InputError(
        "no section resembles another one",
        where="all sections",
        expected="flow between neighbours on a tenth of the nodes (mesh.least_known)",
        got="hardly any",
        fix="look at the sections; try other flow.patch_px, flow.search_px, flow.scales; where "
        "they lie far apart, rough.model other than none",
    )


def decay_of(
    meshes: fields.FieldArray, frame: Frame, settings: MeshSettings, sections: Sequence[int]
) -> Decay:
    """How starts fade in a block, by what pulls at the nodes of some of its meshes on average."""
    pull, count = np.zeros(frame.lattice.shape), 0
    for section in sections:
        here = meshes.read(frame.nodes(frame.z(section), (3,)))[2, 0]
        if here.any():
            pull, count = pull + here, count + 1
    mean = pull / count if count else np.ones(frame.lattice.shape)
    return Decay(frame.lattice, settings.elasticity(frame), frame.settings.gaps, mean)


def read_mesh(meshes: fields.FieldArray, frame: Frame, section: int) -> Field:
    """The offsets of a section's nodes, px."""
    return meshes.read(frame.nodes(frame.z(section), (3,)))[:2, 0].astype(np.float64)


def _followed(frame: Frame, mesh: Field, start: Field) -> Field:
    """A mesh, then its block's start."""
    first, second = (on_lattice(u, frame.lattice) for u in (mesh, start))
    return compose(first, second, outside="nearest").u
