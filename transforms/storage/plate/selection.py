"""Which wells, times, channels and tiles are worked on: `all`, lists, ranges, or all but those.

`A1-B3` is the rectangle of wells A1 A2 A3 B1 B2 B3, `T0-T7` are eight times.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from warpbeam.transforms.storage.errors import InputError

T = TypeVar("T")
Toggle = Literal["include", "exclude"]

_WELL = re.compile(r"([A-Za-z]{1,2})0*([1-9]\d*)")
_TIME = re.compile(r"[Tt]?(\d+)")
# The largest plates have 1536 wells in 32 rows (A to AF) and 48 columns.
MOST_ROWS, MOST_COLUMNS = 32, 48


@dataclass(frozen=True)
class Selection:
    """What is chosen of a plate.

    Attributes:
        experiment: the one experiment; None for all.
        wells, timepoints, channels: `all`, or names and ranges with commas between.
        wells_toggle, timepoints_toggle, channels_toggle: whether those are in or out.
        tile: the one tile; None for all.
    """

    experiment: str | None = None
    wells: str = "all"
    timepoints: str = "all"
    channels: str = "all"
    wells_toggle: Toggle = "include"
    timepoints_toggle: Toggle = "include"
    channels_toggle: Toggle = "include"
    tile: int | None = None


def well_place(name: str, where: str) -> tuple[int, int]:
    """Row and column of a well, from 0: `B03` is (1, 2).

    Raises:
        InputError: it is no well of a plate.
    """
    found = _WELL.fullmatch(name.strip())
    if found:
        row = 0
        for letter in found[1].upper():
            row = 26 * row + ord(letter) - ord("A") + 1
        column = int(found[2])
        if row <= MOST_ROWS and column <= MOST_COLUMNS:
            return row - 1, column - 1
    raise InputError(
        "a well's name is out of range",
        where=where,
        expected="a letter and a number between A1 and AF48",
        got=repr(name),
        fix="correct the name",
    )


def row_name(row: int) -> str:
    """`A` for 0, `AA` for 26."""
    return (chr(ord("A") + row // 26 - 1) if row >= 26 else "") + chr(ord("A") + row % 26)


def chosen_wells(given: str, toggle: Toggle, known: Iterable[str]) -> set[str]:
    """Those of the known wells that are chosen; any two opposite corners make a rectangle.

    Raises:
        InputError: a name is no well, or a well named alone is not on the plate.
    """
    where = "select.wells"
    places = {name: well_place(name, where) for name in known}
    wanted: set[str] = set()
    for first, last in _spans(given):
        corners = (well_place(name, where) for name in (first, last or first))
        rows, columns = map(sorted, zip(*corners, strict=True))
        inside = {
            name
            for name, (row, column) in places.items()
            if rows[0] <= row <= rows[1] and columns[0] <= column <= columns[1]
        }
        if not inside:
            raise _absent(where, given, [n for _, n in sorted((p, n) for n, p in places.items())])
        wanted |= inside
    return _toggled(given, toggle, wanted, set(places))


def chosen_times(given: str, toggle: Toggle, known: Iterable[int]) -> set[int]:
    """Those of the known timepoints that are chosen.

    Raises:
        InputError: no timepoint, or one that is not there.
    """
    where, there, wanted = "select.timepoints", set(known), set[int]()
    for first, last in _spans(given):
        low, high = sorted(_time(text, where) for text in (first, last or first))
        inside = {time for time in there if low <= time <= high}
        if not inside:
            raise _absent(where, given, (f"T{t}" for t in sorted(there)))
        wanted |= inside
    return _toggled(given, toggle, wanted, there)


def chosen_channels(given: str, toggle: Toggle, known: Collection[str]) -> set[str]:
    """Those of the known channels that are chosen, by name.

    Raises:
        InputError: one is not there.
    """
    wanted = set() if given == "all" else {name.strip() for name in given.split(",")}
    if not wanted <= set(known):
        raise _absent("select.channels", given, known)
    return _toggled(given, toggle, wanted, set(known))


def _spans(given: str) -> list[tuple[str, str]]:
    """First and last of each range; the last is empty for a single name."""
    if given.strip() == "all":
        return []
    parts = (part.partition("-") for part in given.split(","))
    return [(first.strip(), last.strip()) for first, _, last in parts]


def _time(text: str, where: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise InputError(
            "a timepoint is not a number",
            where=where,
            expected="numbers and ranges such as 0,3 or T0-T7",
            got=repr(text),
            fix="correct the timepoints",
        )
    return int(found[1])


def _toggled(given: str, toggle: Toggle, wanted: set[T], known: set[T]) -> set[T]:
    if given.strip() == "all":
        return known
    return wanted if toggle == "include" else known - wanted


def _absent(where: str, given: str, known: Iterable[object]) -> InputError:
    return InputError(
        "what is chosen is not on the plate",
        where=where,
        expected=f"some of {', '.join(map(str, known))}",
        got=given,
        fix="correct the selection",
    )
