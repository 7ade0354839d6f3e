"""Runs of `align` on a range of the sections, whose maps another run takes: `redone`.

warpbeam align sections/ part/ --set first_section=118 --set last_section=132 --set flow.steps=2
warpbeam align sections/ aligned/ --set redone='["part"]'
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from warpbeam.pipelines.finished import finished_alignment
from warpbeam.transforms.align.redone import Part
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList

# Kinds of sections that are no hold: their place is a guess.
_UNCERTAIN = ("bridged", "unconnected", "unreadable", "missing")


def parts_of(runs: Sequence[str], tiles: TileList) -> list[Part]:
    """What each run aligned again.

    Raises:
        InputError: there is no such run.
    """
    every = [tile.section for tile in tiles]
    found = []
    for run in runs:
        folder, mark = finished_alignment(run)
        sections = sorted(p.source.key.section for p in load_placement(folder))
        held = {sections[0], sections[-1]} - {min(every), max(every)}
        own = [section for section in sections if section not in held]
        found.append(Part(run, mark, tuple(sorted(held)), tuple(own)))
    return found


def check(parts: Sequence[Part], tiles: TileList) -> None:
    """Raises InputError where a part does not go together with the sections, or with another."""
    shapes = {tile.section: tuple(tile.shape) for tile in tiles}
    for part in parts:
        _check_sections(part, shapes)
        _check_hold(part)
    for a, b in itertools.permutations(parts, 2):
        if common := {*a.own} & {*b.own, *b.held}:
            raise InputError(
                "two runs aligned the same sections again",
                where="redone",
                expected="ranges that have no more than their ends in common",
                got=f"section {min(common)} in {a.run} and {b.run}",
                fix="leave one of them out",
            )


def _check_sections(part: Part, shapes: dict[int, tuple[int, ...]]) -> None:
    folder = RunFolder(part.run)
    for placed in load_placement(folder):
        section, shape = placed.source.key.section, tuple(placed.source.shape)
        if shapes.get(section) != shape:
            raise InputError(
                "a run aligned other sections",
                where=f"redone, {part.run}",
                expected="sections of this stack, at the same resolution",
                got=f"section {section} of {' x '.join(map(str, shape))} px",
                fix="align a range of these sections",
            )


def _check_hold(part: Part) -> None:
    status = {r["section"]: r["status"] for r in tables.read(RunFolder(part.run).table("sections"))}
    if not part.held or not part.own:
        raise InputError(
            "a run cannot take a place in the stack",
            where=f"redone, {part.run}",
            expected="a section on either side of those that are replaced, to hold them",
            got=f"sections {min(status)} to {max(status)}",
            fix="align a range with its neighbours, but not the whole stack",
        )
    for section in part.held:
        if status[section] in _UNCERTAIN:
            raise InputError(
                "a section that should hold others was not aligned itself",
                where=f"redone, {part.run}",
                expected="a range that begins and ends with good sections",
                got=f"section {section}: {status[section]}",
                fix="choose a wider range",
            )
