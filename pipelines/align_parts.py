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
from warpbeam.transforms.tiles import TileSource

# Kinds of sections that were not aligned by their own flow: their place is a guess, which neither
# holds others nor replaces another place.
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
        status = _status(run)
        own = [s for s in sections if s not in held and status.get(s, "missing") not in _UNCERTAIN]
        found.append(Part(run, mark, tuple(sorted(held)), tuple(own)))
    return found


def check(parts: Sequence[Part], sources: Sequence[TileSource]) -> None:
    """Raises InputError where a part does not go together with the sections, or with another."""
    versions = {source.key.section: source.version for source in sources}
    for part in parts:
        _check_sections(part, versions)
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


def _check_sections(part: Part, versions: dict[int, str]) -> None:
    for placed in load_placement(RunFolder(part.run)):
        section = placed.source.key.section
        if section not in versions:
            problem, got = "a run aligned other sections", f"section {section}, which is not here"
        elif placed.source.version != versions[section]:
            problem, got = "a run aligned another image", f"another file of section {section}"
        else:
            continue
        raise InputError(
            problem,
            where=f"redone, {part.run}",
            expected="a range of these sections, from the same files as they are now",
            got=got,
            fix="align a range of these sections again by itself",
        )


def _status(run: str) -> dict[int, str]:
    rows = list(tables.read(RunFolder(run).table("sections")))
    if not rows:
        raise InputError(
            "a run does not tell how its sections were aligned",
            where=f"redone, {run}",
            expected="the folder of a finished run of `warpbeam align`",
            got="no sections.parquet",
            fix="run `warpbeam align` on it again",
        )
    return {row["section"]: row["status"] for row in rows}


def _check_hold(part: Part) -> None:
    status = _status(part.run)
    if not part.held or not part.own:
        raise InputError(
            "a run cannot take a place in the stack",
            where=f"redone, {part.run}",
            expected="sections with flow of their own, and one on either side, to hold them",
            got=f"sections {min(status)} to {max(status)}",
            fix="align a range with its neighbours, but not the whole stack",
        )
    for section in part.held:
        if status.get(section, "missing") in _UNCERTAIN:
            raise InputError(
                "a section that should hold others was not aligned itself",
                where=f"redone, {part.run}",
                expected="a range that begins and ends with good sections",
                got=f"section {section}: {status.get(section, 'missing')}",
                fix="choose a wider range",
            )
