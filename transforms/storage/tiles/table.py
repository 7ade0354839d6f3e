"""A tile list as a table: CSV or Parquet with a header, a row per file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import join, open_binary
from warpbeam.transforms.storage.tiles.model import Matrix
from warpbeam.transforms.storage.tiles.rows import PX, UM, Row, nearest, number, whole_number
from warpbeam.transforms.storage.tiles.text_lines import read_text

PIXELS, MICROMETRES = ("z", "y", "x"), ("z_um", "y_um", "x_um")
LABELS = ("file", "series", "tile", "section", "channel", "time", "mask", "voxel_um")
ENTRIES = tuple(f"m{i}{j}" for i in range(4) for j in range(4))
COLUMNS = (*LABELS, *PIXELS, *MICROMETRES, *ENTRIES)
Record = Mapping[str, Any]


def read_table(path: str, folder: str) -> list[Row]:
    """The rows of a table.

    Raises:
        InputError: an unknown column, positions in two units or in part, a value that is
            not a finite number, or no rows.
    """
    header, found = records(path)
    _check_columns(path, header)
    place = _position_columns(path, header)
    entries = _matrix_columns(path, header)
    return [
        _row(record, f"{path}, row {k}", folder, place, entries)
        for k, record in enumerate(found, start=1)
    ]


def is_tile_table(path: str) -> bool:
    """Whether the header has a column `file`."""
    try:
        return "file" in records(path)[0]
    except InputError:
        return False


def records(path: str) -> tuple[list[str], list[Record]]:
    """The header and the rows of a CSV or Parquet table.

    Raises:
        InputError: the file cannot be read, or a row has another length than the header.
    """
    if path.lower().endswith((".parquet", ".pq")):
        return _parquet(path)
    text = "".join(f"{line}\n" for line in read_text(path).splitlines() if _counts(line))
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    found: list[Record] = []
    for k, cells in enumerate(reader, start=1):
        if len(cells) != len(header):
            raise InputError(
                "a row has the wrong number of cells",
                where=f"{path}, row {k}",
                expected=f"{len(header)} cells, as the header has",
                got=f"{len(cells)} cells",
                fix="correct the row; quote names that hold the delimiter",
            )
        found.append({n: c.strip() for n, c in zip(header, cells, strict=True)})
    return header, found


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _parquet(path: str) -> tuple[list[str], list[Record]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_binary(path) as stream:
            table = pyarrow.parquet.read_table(stream)
    except (pyarrow.ArrowInvalid, FileNotFoundError) as cause:
        raise InputError(
            "a table cannot be read",
            where=path,
            expected="a Parquet file",
            got=str(cause),
            fix="correct the path, or write the table again",
        ) from cause
    return list(table.column_names), table.to_pylist()


def _check_columns(path: str, header: Sequence[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            raise InputError(
                f"a tile list has an unknown column{nearest(name, COLUMNS)}",
                where=f"{path}, column {name!r}",
                expected=f"columns out of {', '.join((*LABELS, *PIXELS, *MICROMETRES))}, m00 …",
                got=f"columns {', '.join(header)}",
                fix="rename the column, or take it out",
            )
    for name in header:
        if header.count(name) > 1:
            raise _bad_columns(path, f"the column {name} once", header)
    if "file" not in header:
        raise _bad_columns(path, "a column `file`", header)


def _position_columns(path: str, header: Sequence[str]) -> tuple[str, ...]:
    """The columns of the position in array order; none if the table has none."""
    found = [[c for c in names if c in header] for names in (PIXELS, MICROMETRES)]
    if all(found):
        raise _bad_columns(path, "positions in pixels or in micrometres, not both", header)
    for given, names in zip(found, (PIXELS, MICROMETRES), strict=True):
        if given and given not in (list(names), list(names[1:])):
            raise _bad_columns(path, f"{names[1]} and {names[2]}, and {names[0]} in 3-D", header)
    return tuple(found[0] or found[1])


def _matrix_columns(path: str, header: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The names of the matrix's entries, row by row; none if the table has none."""
    given = {c for c in header if c in ENTRIES}
    if not given:
        return ()
    for rows, columns in ((2, 3), (3, 3), (3, 4), (4, 4)):
        names = tuple(tuple(f"m{i}{j}" for j in range(columns)) for i in range(rows))
        if given == {n for row in names for n in row}:
            return names
    raise _bad_columns(path, "m00 … m12 or m22 in 2-D, m00 … m23 or m33 in 3-D", header)


def _bad_columns(path: str, expected: str, header: Sequence[str]) -> InputError:
    return InputError(
        "the columns of a tile list do not fit together",
        where=f"{path}, header",
        expected=expected,
        got=f"columns {', '.join(header)}",
        fix="correct the header",
    )


def _row(
    record: Record,
    where: str,
    folder: str,
    place: tuple[str, ...],
    entries: tuple[tuple[str, ...], ...],
) -> Row:
    name = _text(record, "file")
    if name is None:
        raise InputError(
            "a row names no file",
            where=where,
            expected="a file name",
            got="an empty cell",
            fix="fill the cell, or take the row out",
        )
    where = f"{where} ({name})"
    series, time, mask = (_text(record, c) for c in ("series", "time", "mask"))
    voxel, section = _text(record, "voxel_um"), _text(record, "section")
    matrix: Matrix | None = None
    if entries:
        matrix = tuple(
            tuple(number(record[c], where=where, field=c) for c in row) for row in entries
        )
    return Row(
        file=join(folder, name),
        name=name,
        where=where,
        position=tuple(number(record[c], where=where, field=c) for c in place) or None,
        unit=UM if place and place[-1] == "x_um" else PX,
        series=whole_number(series, where=where, field="series") if series else 0,
        tile=_text(record, "tile"),
        section=str(whole_number(section, where=where, field="section")) if section else None,
        channel=_text(record, "channel"),
        time=whole_number(time, where=where, field="time") if time else None,
        matrix=matrix,
        mask=join(folder, mask) if mask else None,
        voxel_um=(number(voxel, where=where, field="voxel_um"),) if voxel else None,
    )


def _text(record: Record, column: str) -> str | None:
    value = record.get(column)
    return str(value) if value is not None and str(value) != "" else None
