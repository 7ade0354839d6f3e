"""Which sections are solved in one chain: blocks along z.

    block 0   a -- . -- . -- . -- . -- .
    block 1             b -- b -- . -- . -- . -- . -- .      each block is a chain of its own, its
    block 2                            c -- c -- . -- . --   first section at rest

Blocks overlap by a few sections, which belong to the earlier one, so that a chain is under way when
its own sections begin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.kernels.mesh.chain import ChainSettings
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.transforms.align.frame import Frame, load_frame
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.ledger import Ledger, digest
from warpbeam.transforms.storage.run_folder import RunFolder

LEAD = 6  # sections that a block begins earlier than its own


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
        lead = [s for s in good if border - min(LEAD, length - 1) <= s <= border]
        first = lead[0] if number else border
        inside = [s for s in sections if first <= s <= last]
        before = [s for s in reversed(sections) if s < first] if number == 0 else []
        own = [s for s in (*inside, *before) if number == 0 or s > border]
        found.append(Block(first, last, (*inside, *before), tuple(own)))
    return found


def block_units(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> list[Unit]:
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
    yield from block_units(run, cleaned, settings)[:-1]


def blocks_in_turn(run: RunFolder, cleaned: Ledger, settings: MeshSettings) -> list[list[Any]]:
    """Of each block its first section, its own ones, and those that it begins with."""
    frame, units = load_frame(run), block_units(run, cleaned, settings)
    return [[p[1][0], p[3], beginning(frame, p[1], p[3])] for _, p in units]


def beginning(frame: Frame, sections: Sequence[int], own: Sequence[int]) -> list[int]:
    """The sections that a block begins with, all of the block before: as many as a section looks
    back for references, so that the chain goes on as if it had never ended."""
    reach = max(*frame.settings.gaps, *frame.settings.bridges, 1)
    return [s for s in sections[:reach] if s not in set(own)]
