"""Rows of a plate: from a table, a folder with a name pattern, or an OME-Zarr plate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from warpbeam.transforms.storage import ngff, store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import join, list_files
from warpbeam.transforms.storage.plate.hcs import TIMEPOINTS
from warpbeam.transforms.storage.plate.selection import well_place
from warpbeam.transforms.storage.tiles.pattern import compile_pattern
from warpbeam.transforms.storage.tiles.rows import nearest, number, whole_number
from warpbeam.transforms.storage.tiles.table import records

NEEDED = ("well", "file")
COLUMNS = (
    "experiment", "well", "timepoint", "channel", "tile", "file", "hours", "file_series",
    "file_channel", "file_time", "file_plane",
)  # fmt: skip
_NUMBERS, _NAMES = ("timepoint", "tile"), ("experiment", "well", "channel")
_INDICES = ("file_series", "file_channel", "file_time", "file_plane")
# Of a table that pandas wrote after it took rows out.
_INDEX = "__index_level_"
DEFAULT_EXPERIMENT = "experiment"


@dataclass(frozen=True)
class PlateRow:
    """One image: what it shows, and where it lies.

    Attributes:
        where: the table and row, for messages.
        index: series, channel, time and plane inside the file; plane may be None.
    """

    where: str
    experiment: str
    well: str
    timepoint: int
    channel: str
    tile: int
    file: str
    hours: float | None = None
    index: tuple[int, int, int, int | None] = (0, 0, 0, None)


def table_rows(path: str, folder: str) -> list[PlateRow]:
    """The rows of a CSV or Parquet table; files are relative to `folder`.

    Raises:
        InputError: an unknown or missing column, or a cell that makes no sense.
    """
    header, found = records(path)
    for name in header:
        if name not in COLUMNS and not name.startswith(_INDEX):
            raise InputError(
                f"a plate table has an unknown column{nearest(name, COLUMNS)}",
                where=f"{path}, column {name!r}",
                expected=f"columns out of {', '.join(COLUMNS)}",
                got=f"columns {', '.join(header)}",
                fix="rename the column, or take it out",
            )
    for name in (*NEEDED, *header):
        if header.count(name) != 1:
            raise InputError(
                f"a plate table has {'two columns' if name in header else 'no column'} {name}",
                where=f"{path}, header",
                expected=f"the columns {', '.join(NEEDED)}, and each once",
                got=f"columns {', '.join(header)}",
                fix="take one out" if name in header else "add the column",
            )
    return [_row(cells, f"{path}, row {k}", folder) for k, cells in enumerate(found, start=1)]


def _row(cells: Any, where: str, folder: str) -> PlateRow:
    def text(name: str, default: str) -> str:
        value = str(cells.get(name) if cells.get(name) is not None else "").strip()
        return default if value in ("", "nan", "NaN") else value  # as pandas writes what is missing

    def index(name: str) -> int:
        return whole_number(text(name, "0"), where=where, field=name)

    name, well = text("file", ""), text("well", "")
    if not name:
        raise InputError(
            "a row names no file", where=where, expected="a file name", got="an empty cell",
            fix="fill the cell, or take the row out",
        )  # fmt: skip
    well_place(well, where)
    time = re.sub(r"^[Tt](?=\d)", "", text("timepoint", "0"))
    hours = text("hours", "")
    series, channel, at, plane = (index(n) for n in _INDICES)
    return PlateRow(
        where=where,
        experiment=text("experiment", DEFAULT_EXPERIMENT),
        well=well,
        timepoint=whole_number(time, where=where, field="timepoint"),
        channel=text("channel", "0"),
        tile=whole_number(text("tile", "1"), where=where, field="tile"),
        file=join(folder, name),
        hours=number(hours, where=where, field="hours") if hours else None,
        index=(series, channel, at, plane if text("file_plane", "") else None),
    )


def pattern_rows(folder: str, pattern: str) -> list[PlateRow]:
    """A row per file of a folder whose name fits, such as `{well}_T{timepoint}_{channel}.tif`.

    Raises:
        InputError: an unknown field, no `{well}`, or no file that fits.
    """
    match = compile_pattern(pattern, _NUMBERS, _NAMES).fullmatch
    names = list_files(folder, depth=pattern.count("/"))
    found = {name: m.groupdict() for name in names if (m := match(name))}
    if not found or "{well}" not in pattern:
        raise InputError(
            "no file matches the name pattern" if not found else "a name pattern has no {well}",
            where=folder,
            expected=f"files such as {pattern!r}, with the fields {', '.join(_NAMES + _NUMBERS)}",
            got=", ".join(names[:3]) or "no files",
            fix="correct input.pattern",
        )
    return [
        _row({**fields, "file": name}, join(folder, name), folder) for name, fields in found.items()
    ]


def is_hcs(uri: str) -> bool:
    """Whether there is an OME-Zarr plate."""
    group = ngff.read_group(uri)
    return group is not None and "plate" in group[1].get("ome", group[1])


def hcs_rows(uri: str) -> Iterator[PlateRow]:
    """A row per channel and time of every field of an OME-Zarr plate.

    Fields have the numbers of their paths, or count from 1 where one is 0 or no number; times
    count from 0 where the plate does not name them.
    """
    attributes = _attributes(uri)
    plate = attributes.get("ome", attributes)["plate"]
    named = attributes.get(TIMEPOINTS, [])
    experiment = str(plate.get("name") or os.path.basename(uri.rstrip("/")).split(".")[0])
    for well in plate["wells"]:
        place = store.join(uri, well["path"])
        paths = [str(image["path"]) for image in _ome(place)["well"]["images"]]
        numbered = all(path.isdigit() and int(path) for path in paths)
        tiles = list(map(int, paths)) if numbered else range(1, len(paths) + 1)
        for tile, path in zip(tiles, paths, strict=True):
            field = store.join(place, path)
            channels, times = _extent(field)
            for channel, label in enumerate(channels):
                for time in range(times):
                    yield PlateRow(
                        field, experiment, well["path"].replace("/", ""),
                        named[time] if len(named) == times else time, label, tile, field,
                        None, (0, channel, time, None),
                    )  # fmt: skip


def _extent(field: str) -> tuple[list[str], int]:
    """Names of the channels, and how many times there are."""
    from warpbeam.transforms.storage.images import ImageRef, probe

    info = probe(ImageRef(field))
    shown = _ome(field).get("omero", {}).get("channels", [])
    names = [str(c.get("label", k)) for k, c in enumerate(shown)]
    if len(names) != info.channels:
        names = [str(k) for k in range(info.channels)]
    return names, info.times


def _ome(uri: str) -> dict[str, Any]:
    attributes = _attributes(uri)
    found: dict[str, Any] = attributes.get("ome", attributes)
    return found


def _attributes(uri: str) -> dict[str, Any]:
    group = ngff.read_group(uri)
    if group is None:
        raise InputError(
            "a part of an OME-Zarr plate is missing",
            where=uri,
            expected="a Zarr group",
            got="nothing",
            fix="copy the plate again",
        )
    return group[1]
