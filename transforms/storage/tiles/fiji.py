"""Fiji's TileConfiguration.txt and TileConfiguration.registered.txt, 2-D and 3-D.

    dim = 2
    # Define the image coordinates
    tile_1.tif; ; (0.0, 0.0)

The field between the semicolons is a series where the file says `multiSeries = true`.
"""

from __future__ import annotations

import re

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import join
from warpbeam.transforms.storage.tiles.rows import Row, number, whole_number
from warpbeam.transforms.storage.tiles.text_lines import bad_line, lines

SETTING = re.compile(r"(\w+)\s*=\s*(\w+)")
TILE = re.compile(r"([^;]+);([^;]*);\s*\(([^()]*)\)\s*;?")


def read_fiji(path: str, text: str, folder: str) -> list[Row]:
    """One row per line; positions xy(z) become (z)yx.

    Raises:
        InputError: a line of another form, or another number of coordinates than `dim`.
    """
    settings: dict[str, str] = {}
    rows = []
    for where, line in lines(path, text):
        if setting := SETTING.fullmatch(line):
            settings[setting[1].lower()] = setting[2].lower()
        elif match := TILE.fullmatch(line):
            rows.append(_row(match, where, folder, settings))
        else:
            raise bad_line(where, line, "name; ; (x, y) or name; ; (x, y, z)")
    return rows


def _row(match: re.Match[str], where: str, folder: str, settings: dict[str, str]) -> Row:
    name, series = match[1].strip(), match[2].strip()
    parts = match[3].split(",")
    xyz = [number(p, where=where, field="a coordinate") for p in parts]
    expected = settings.get("dim", "2 or 3")
    if str(len(xyz)) not in expected:
        raise InputError(
            "a tile has the wrong number of coordinates",
            where=where,
            expected=f"{expected} (dim)",
            got=f"{len(xyz)}",
            fix="correct the line, or `dim`",
        )
    several = settings.get("multiseries") == "true" and series
    return Row(
        file=join(folder, name),
        name=name,
        where=where,
        position=tuple(reversed(xyz)),
        series=whole_number(series, where=where, field="the series") if several else 0,
    )
