"""`read_tiles`: recognises what a user gave and reads it."""

from __future__ import annotations

import os

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import exists, is_folder, join, list_files
from warpbeam.transforms.storage.tiles.assembling import assemble
from warpbeam.transforms.storage.tiles.fiji import read_fiji
from warpbeam.transforms.storage.tiles.mist import read_mist
from warpbeam.transforms.storage.tiles.model import TileList
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.options import FORMATS, TileOptions
from warpbeam.transforms.storage.tiles.pattern import read_pattern
from warpbeam.transforms.storage.tiles.rows import Row
from warpbeam.transforms.storage.tiles.stage import has_stage, read_stage, with_stage
from warpbeam.transforms.storage.tiles.table import is_tile_table, read_table
from warpbeam.transforms.storage.tiles.text_lines import read_text

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
TABLES = (".csv", ".tsv", ".parquet", ".pq")


def read_tiles(source: str, *, options: TileOptions | None = None) -> TileList:
    """The tiles of a list or folder, after a look at every file's header.

    Args:
        source: a CSV or Parquet table, a Fiji or MIST text file, a TIFF with several
            placed images, or a folder of images (with a list in it, a name pattern, stage
            positions in the files, or a transforms file).

    Raises:
        InputError: anything wrong with the list or its files.
    """
    chosen = options or TileOptions()
    if chosen.format is not None and chosen.format not in FORMATS:
        raise InputError(
            "a tile list cannot be of this format",
            where="option format",
            expected=f"one of {', '.join(FORMATS)}",
            got=chosen.format,
            fix="correct the format, or leave it out",
        )
    if not exists(source):
        raise InputError(
            "a tile list does not exist",
            where=source,
            expected="a tile list or a folder of images",
            got="no such file or folder",
            fix="correct the path",
        )
    rows = _folder_rows(source, chosen) if is_folder(source) else _file_rows(source, chosen)
    return assemble(rows, chosen, source)


def _file_rows(path: str, options: TileOptions) -> list[Row]:
    folder = options.images or os.path.dirname(path)
    if path.lower().endswith(IMAGES):
        return read_stage(os.path.dirname(path), [os.path.basename(path)])
    if path.lower().endswith(TABLES) or options.format == "table":
        return read_table(path, folder)
    text = read_text(path)
    kind = options.format or _kind_of_text(text)
    if kind == "fiji":
        return read_fiji(path, text, folder)
    if kind == "mist":
        return read_mist(path, text, folder)
    raise InputError(
        "a tile list is of no known format",
        where=path,
        expected="CSV or Parquet with a header, Fiji's TileConfiguration.txt, or MIST positions",
        got=text[:80].partition("\n")[0] or "an empty file",
        fix="name the file .csv if it is a table, or set format",
    )


def _kind_of_text(text: str) -> str | None:
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("file:"):
            return "mist"
        if stripped.startswith(("dim", "multiSeries")) or stripped.count(";") >= 2:
            return "fiji"
        return None
    return None


def _folder_rows(folder: str, options: TileOptions) -> list[Row]:
    if options.pattern is not None:
        depth = options.pattern.count("/")
        rows = read_pattern(folder, list_files(folder, depth=depth), options)
        return rows if options.transforms is not None else with_stage(rows)
    names = list_files(folder, depth=0)
    images = sorted((n for n in names if n.lower().endswith(IMAGES)), key=natural)
    if options.format == "stage":
        return read_stage(folder, images)
    found = {n: kind for n in names if (kind := _list_kind(join(folder, n)))}
    lists = sorted(n for n, kind in found.items() if options.format in (None, kind))
    if len(lists) == 1:
        return _file_rows(join(folder, lists[0]), options)
    if lists:
        raise InputError(
            "a folder holds several tile lists",
            where=folder,
            expected="one list",
            got=", ".join(lists),
            fix="give the path of the list itself, or set format",
        )
    if options.transforms is not None:
        return [Row(join(folder, n), n, join(folder, n)) for n in images]
    if images and has_stage(join(folder, images[0])):
        return read_stage(folder, images)
    raise _nothing_found(folder, names, images)


def _nothing_found(folder: str, names: list[str], images: list[str]) -> InputError:
    tables = [n for n in names if n.lower().endswith(TABLES)]
    if not images and not tables:
        return InputError(
            "a folder holds no images",
            where=folder,
            expected=f"files that end in {', '.join(IMAGES)}, or a list of them",
            got=f"other files alone: {len(names)}",
            fix="give the folder in which the images lie",
        )
    example = f", such as {images[0]}" if images else ""
    return InputError(
        "nothing says where the tiles of a folder lie",
        where=folder,
        expected="a tile list in it, stage positions in its TIFF files, or a name pattern",
        got=f"{len(images)} images{example}"
        + (f"; no column `file` in {', '.join(tables)}" if tables else ""),
        fix="set pattern and overlap, for example tile_{row}_{col}.tif and 0.1, or give a CSV list",
    )


def _list_kind(path: str) -> str | None:
    """What kind of tile list a file is, if it is one."""
    if path.lower().endswith(TABLES):
        return "table" if is_tile_table(path) else None
    if not path.lower().endswith(".txt"):
        return None
    try:
        return _kind_of_text(read_text(path))
    except InputError:
        return None
