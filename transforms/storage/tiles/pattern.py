"""Files of a folder by a name pattern such as `tile_{row}_{col}_c{channel}.tif`.

`{row}`, `{col}` and `{index}` place a tile on a grid; `{tile}`, `{section}`, `{channel}` and
`{time}` say what it is; files that differ in `{z}` only are the planes of one stack. `*` is
any text. A pattern without a place leaves it to the stage positions in the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import join
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.rows import GRID, Row, nearest

NUMBERS, NAMES = ("row", "col", "index", "z", "time"), ("tile", "section", "channel")
FIELD = re.compile(r"\{(\w*)\}")
Fields = dict[str, str]


def compile_pattern(
    pattern: str, numbers: Sequence[str] = NUMBERS, names: Sequence[str] = NAMES
) -> re.Pattern[str]:
    """The regular expression of a pattern; a field that occurs twice must agree.

    Args:
        pattern: text with fields such as `{row}`.
        numbers: fields that are whole numbers.
        names: fields that are any text.

    Raises:
        InputError: an unknown field.
    """
    parts: list[str] = []
    seen: set[str] = set()
    for k, piece in enumerate(FIELD.split(pattern)):
        if k % 2 == 0:
            parts.append("[^/]*?".join(map(re.escape, piece.split("*"))))
        elif piece not in (*numbers, *names):
            raise InputError(
                f"a name pattern has an unknown field{nearest(piece, (*numbers, *names))}",
                where=f"pattern {pattern!r}",
                expected=f"fields out of {', '.join((*numbers, *names))}",
                got=f"{{{piece}}}",
                fix="correct the pattern",
            )
        elif piece in seen:
            parts.append(f"(?P={piece})")
        else:
            seen.add(piece)
            parts.append(f"(?P<{piece}>{'[0-9]+' if piece in numbers else '[^/]+?'})")
    return re.compile("".join(parts))


def read_pattern(folder: str, names: Sequence[str], options: TileOptions) -> list[Row]:
    """One row per file that matches, or per stack of files.

    Raises:
        InputError: no file matches, or the grid is not said.
    """
    pattern = options.pattern or ""
    match = compile_pattern(pattern).fullmatch
    found = {name: m for name in names if (m := match(name))}
    if not found:
        raise InputError(
            "no file matches the name pattern",
            where=folder,
            expected=f"files such as {pattern!r}",
            got=f"{', '.join(names[:3]) or 'no files'}{' …' if len(names) > 3 else ''}",
            fix="correct the pattern; fields are written {row}, {col}, {channel} …",
        )
    fields = [m.groupdict() for m in found.values()]
    base = {f: min(int(m[f]) for m in fields) for f in NUMBERS if f in fields[0]}
    return [
        _row(folder, name, match, base, options)
        for name, match in sorted(_stacked(found).items(), key=lambda item: natural(item[0]))
    ]


def _stacked(found: dict[str, re.Match[str]]) -> dict[str, re.Match[str]]:
    """Planes that differ in {z} only as one name, with `*` for the plane number."""
    if len({m.groupdict().get("z") for m in found.values()}) == 1:
        return found
    return {_without(name, m, {"z": "*"}): m for name, m in found.items()}


def _without(name: str, match: re.Match[str], instead: dict[str, str]) -> str:
    """The name with the text of some fields replaced."""
    spans = sorted((match.span(f), text) for f, text in instead.items() if f in match.groupdict())
    for (start, stop), text in reversed(spans):
        name = name[:start] + text + name[stop:]
    return name


def _row(
    folder: str,
    name: str,
    match: re.Match[str],
    base: dict[str, int],
    options: TileOptions,
) -> Row:
    fields = match.groupdict()
    return Row(
        file=join(folder, name),
        name=name,
        where=join(folder, name),
        position=_place(folder, fields, base, options),
        unit=GRID,
        tile=_tile(match),
        section=fields.get("section"),
        channel=fields.get("channel"),
        time=int(fields["time"]) if "time" in fields else None,
    )


def _tile(match: re.Match[str]) -> str:
    """A name out of what tells tiles apart."""
    fields = match.groupdict()
    if "tile" in fields:
        return fields["tile"]
    if "row" in fields or "col" in fields:
        return "_".join(f"{f[0]}{fields[f]}" for f in ("row", "col") if f in fields)
    if "index" in fields:
        return fields["index"]
    shared = dict.fromkeys(("channel", "time", "section", "z"), "")
    return _without(match.string, match, shared).rpartition(".")[0].replace("/", "_")


def _place(
    folder: str, fields: Fields, base: dict[str, int], options: TileOptions
) -> tuple[float, float] | None:
    """Row and column, counted from 0; None if the pattern has no place."""
    if "row" in fields or "col" in fields:
        row, col = (int(fields[f]) - base[f] if f in fields else 0 for f in ("row", "col"))
        return (float(row), float(col))
    if "index" not in fields:
        return None
    if options.grid is None:
        raise InputError(
            "the grid of the tiles is not known",
            where=f"{folder}, pattern {options.pattern!r}",
            expected="the rows and columns of the grid, to place {index}",
            got="no grid",
            fix="set grid, for example to 4, 6 (and order, snake if they apply)",
        )
    return grid_place(int(fields["index"]) - base["index"], options.grid, options)


def grid_place(index: int, grid: tuple[int, int], options: TileOptions) -> tuple[float, float]:
    """Row and column of the `index`-th tile of a scan.

    Raises:
        InputError: the grid has fewer tiles.
    """
    rows, columns = grid
    if index >= rows * columns:
        raise InputError(
            "a tile lies outside the grid",
            where=f"pattern {options.pattern!r}",
            expected=f"at most {rows * columns} tiles in {rows} rows and {columns} columns",
            got=f"tile number {index + 1}",
            fix="correct grid",
        )
    length = columns if options.order == "row" else rows
    outer, inner = divmod(index, length)
    if options.snake and outer % 2:
        inner = length - 1 - inner
    place = (float(outer), float(inner))
    return place if options.order == "row" else (place[1], place[0])
