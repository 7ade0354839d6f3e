"""From what a list says about places to pixels of the world, in array order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageInfo
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.rows import GRID, UM, Row

SAME_VOXEL = 0.01  # microscopes round the size that they write


def voxel_size(
    rows: Sequence[Row], infos: Sequence[ImageInfo], options: TileOptions
) -> tuple[float, ...] | None:
    """The voxel size in um: what the user said, else the list, else the files if they agree.

    Raises:
        InputError: a size that is not positive, or of another rank than the images.
    """
    ndim = len(infos[0].shape)
    if options.voxel_um is not None:
        return _of_rank(options.voxel_um, ndim, "option voxel_um")
    said = [row.voxel_um for row in rows if row.voxel_um is not None]
    listed = [
        _of_rank(v if len(v) > 1 else v[0], ndim, "voxel_um") for v in said if _known(v, ndim)
    ]
    found = listed or [info.voxel_um for info in infos if info.voxel_um is not None]
    if not found or not np.allclose(found, found[0], rtol=SAME_VOXEL, atol=0):
        return None
    return found[0]


def pixel_position(
    row: Row,
    shape: tuple[int, ...],
    voxel_um: tuple[float, ...] | None,
    options: TileOptions,
) -> tuple[float, ...] | None:
    """The position of voxel 0; None where the row does not say.

    Args:
        shape: of the tile; for a grid, of its largest tile.

    Raises:
        InputError: a 3-D position of a 2-D image, no voxel size, or no overlap.
    """
    if row.position is None:
        return None
    if len(row.position) > len(shape):
        raise InputError(
            "a 2-D image has a position in z",
            where=row.where,
            expected="y and x",
            got=f"{len(row.position)} coordinates",
            fix="take the column z out (for planes of a specimen use the column section)",
        )
    place = _oriented((0.0,) * (len(shape) - len(row.position)) + row.position, options)
    if row.unit == GRID:
        place = _times(place, _grid_step(shape, options, row.where))
    elif row.unit == UM:
        if voxel_um is None:
            raise InputError(
                "positions are in micrometres and the voxel size is not known",
                where=row.where,
                expected="one voxel size for all tiles",
                got="none, or sizes that differ",
                fix="set voxel_um, or add the column voxel_um",
            )
        place = _times(place, [1 / v for v in voxel_um])
    return place


def matrix_position(matrix: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Where a matrix takes voxel 0."""
    full = affine.homogeneous(matrix)
    return tuple((full[:-1, -1] / full[-1, -1]).tolist())


def no_position(row: Row) -> InputError:
    return InputError(
        "a tile has no position",
        where=row.where,
        expected="columns y, x (or y_um, x_um, or m00 …), or a transforms file",
        got="none of them",
        fix="add the columns, or name the transforms file",
    )


def _known(voxel: Sequence[float], ndim: int) -> bool:
    return not any(map(math.isnan, voxel[-ndim:]))


def _of_rank(size: float | Sequence[float], ndim: int, where: str) -> tuple[float, ...]:
    sizes = (size,) * ndim if isinstance(size, int | float) else tuple(size)[-ndim:]
    if len(sizes) != ndim or not all(math.isfinite(s) and s > 0 for s in sizes):
        raise InputError(
            "a voxel size cannot be used",
            where=where,
            expected=f"one positive number, or {ndim} in the order {'zyx'[-ndim:]}",
            got=str(size),
            fix="correct the voxel size",
        )
    return tuple(float(s) for s in sizes)


def _oriented(place: tuple[float, ...], options: TileOptions) -> tuple[float, ...]:
    *z, y, x = place
    if options.swap_xy:
        y, x = x, y
    return (*z, -y if options.flip_y else y, -x if options.flip_x else x)


def _grid_step(shape: tuple[int, ...], options: TileOptions, where: str) -> list[float]:
    given = options.overlap
    pair = given if isinstance(given, tuple) else (given, given)
    steps = [0.0] * (len(shape) - 2)
    for overlap, length in zip(pair, shape[-2:], strict=True):
        if overlap is None or not 0 <= overlap < length:
            raise InputError(
                "the overlap of a grid of tiles cannot be used",
                where=where,
                expected=f"a fraction below 1 or pixels below {length}",
                got="no overlap" if overlap is None else f"overlap {overlap}",
                fix="set overlap, for example to 0.1",
            )
        steps.append(length - (overlap * length if overlap < 1 else overlap))
    return steps


def _times(place: Sequence[float], factors: Sequence[float]) -> tuple[float, ...]:
    # Adding 0 turns the -0.0 of a flipped origin into 0.0, so that fingerprints agree.
    return tuple(p * f + 0.0 for p, f in zip(place, factors, strict=True))
