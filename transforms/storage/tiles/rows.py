"""What one line of a list says, before the files were looked at."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles.model import Matrix

PX, UM, GRID = "px", "um", "grid"


@dataclass(frozen=True)
class Row:
    """One file (or series of a file) of a list.

    Args:
        file: as it can be opened.
        name: as the list writes it.
        where: the list and line, for messages.
        position: yx or zyx, in `unit`; None where only a matrix is known.
        unit: pixels, micrometres, or steps of a grid.
        tile, channel, time, section: as given; None where the list does not say.
    """

    file: str
    name: str
    where: str
    position: tuple[float, ...] | None = None
    unit: str = PX
    series: int = 0
    tile: str | None = None
    section: str | None = None
    channel: str | None = None
    time: int | None = None
    matrix: Matrix | None = None
    mask: str | None = None
    voxel_um: tuple[float, ...] | None = None


def number(text: object, *, where: str, field: str) -> float:
    """A finite number.

    Raises:
        InputError: no number, NaN or infinite.
    """
    try:
        value = float(str(text).strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{field} is not a finite number",
            where=where,
            expected="a number such as 1024 or -3.5",
            got=repr(text),
            fix="correct the value, or take the tile off the list",
        )
    return value


def whole_number(text: object, *, where: str, field: str) -> int:
    """An integer, also where a table holds it as 3.0.

    Raises:
        InputError: anything else.
    """
    value = number(text, where=where, field=field)
    if value != int(value):
        raise InputError(
            f"{field} is not a whole number",
            where=where,
            expected="an index such as 0 or 12",
            got=repr(text),
            fix="correct the value",
        )
    return int(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" for a name that resembles a known one or holds it as a word."""
    options = list(known)
    words = [w for w in re.split(r"[^a-z0-9]+", name.lower()) if w in options]
    close = words or difflib.get_close_matches(name.lower(), options, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
