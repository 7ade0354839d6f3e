"""Known matrices from a JSON file: {"key": {"matrix": [[...]]}}, source voxel to world voxel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from warpbeam.kernels.geometry import affine
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles.model import Matrix
from warpbeam.transforms.storage.tiles.rows import nearest, number
from warpbeam.transforms.storage.tiles.text_lines import read_text

Key = tuple[int, int, str]


def read_matrices(path: str) -> dict[str, Matrix]:
    """The matrices by key.

    Raises:
        InputError: not JSON, another form, or a number that is not finite.
    """
    try:
        given = json.loads(read_text(path))
    except json.JSONDecodeError as cause:
        raise _bad(path, f"not JSON: {cause}") from cause
    if not isinstance(given, dict):
        raise _bad(path, f"a JSON {type(given).__name__}")
    return {key: _matrix(f"{path}, key {key!r}", entry) for key, entry in given.items()}


def check_matrix(matrix: Matrix, ndim: int, where: str) -> None:
    """Sees that a matrix is one of `ndim`-dimensional space and can be inverted."""
    try:
        rank = len(affine.homogeneous(matrix)) - 1
    except ValueError as cause:
        raise _bad(where, str(cause)) from cause
    if rank != ndim:
        raise _bad(where, f"a {rank}-D matrix for {ndim}-D images")


def match_matrices(
    matrices: Mapping[str, Matrix], names: Mapping[Key, Sequence[str]], path: str
) -> dict[Key, Matrix]:
    """The matrix of each tile.

    Args:
        matrices: by file name, file name without suffix, tile name or time/section/tile.
        names: the names of the files of each tile, by time, section and tile.

    Raises:
        InputError: a tile without a matrix or with two, or a key that fits several tiles
            of one montage.
    """
    chosen: dict[Key, Matrix] = {}
    owner: dict[tuple[str, Key], Key] = {}
    for key, files in names.items():
        found = [n for n in _keys(key, files) if n in matrices]
        if not found:
            raise InputError(
                f"a tile has no matrix{nearest(key[2], matrices)}",
                where=f"{path}, tile {key[2]!r}",
                expected=f"one of the keys {', '.join(map(repr, _keys(key, files)))}",
                got=f"keys {', '.join(map(repr, list(matrices)[:5]))} …",
                fix="add the matrix, or take the tile off the list",
            )
        if len({matrices[n] for n in found}) > 1:
            raise _bad(path, f"keys {found} give tile {key[2]!r} different matrices")
        place = (found[0], (*key[:2], ""))
        if owner.setdefault(place, key) != key:
            raise _bad(path, f"key {found[0]!r} fits the tiles {owner[place]} and {key}")
        chosen[key] = matrices[found[0]]
    return chosen


def _keys(key: Key, files: Sequence[str]) -> list[str]:
    """From the most to the least specific."""
    time, section, tile = key
    keys = [f"{time}/{section}/{tile}", *files, tile]
    for file in files:
        base = PurePosixPath(file.replace("\\", "/")).name
        keys += [base, PurePosixPath(base).stem, re.sub(r"\.ome\.tiff?$", "", base)]
    return list(dict.fromkeys(keys))


def _matrix(where: str, entry: object) -> Matrix:
    rows = entry.get("matrix") if isinstance(entry, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, list) for r in rows):
        raise _bad(where, repr(entry)[:100])
    return tuple(tuple(number(n, where=where, field="a matrix entry") for n in r) for r in rows)


def _bad(where: str, got: str) -> InputError:
    return InputError(
        "a matrix cannot be used",
        where=where,
        expected='{"key": {"matrix": [[...]]}}: 2 x 3 or 3 x 3 in 2-D, 3 x 4 or 4 x 4 in 3-D,'
        " yx or zyx, finite and invertible",
        got=got,
        fix="correct the file",
    )
