"""Fused voxels of any box, cell by cell.

shard                     Everything is computed on *render cells*: a fixed grid
+-------+-------+---      anchored at voxel 0 of the output. A cell's result depends
| cell  | cell  |         on the tiles and on the cell alone, so the fused image is
+-------+-------+---      the same to the bit however the output is cut into shards.
| cell  | cell  |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num, UInt8

from warpbeam.kernels.fuse.blend import MULTIBAND_HALO, blend, coverage
from warpbeam.kernels.fuse.view import TileView
from warpbeam.kernels.fuse.warp import warp
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid

# Small enough that a cell's few float32 arrays stay in the L2 cache (256 KB each), and
# that many cells lie in one tile only; large enough that a call costs little per voxel.
_CELL = {2: (256, 256), 3: (16, 64, 64)}


def cells(box: Box) -> list[Box]:
    """The render cells that share a voxel with `box`, whole."""
    block = _CELL[box.ndim]
    low = [a // b for a, b in zip(box.start, block, strict=True)]
    origin = tuple(i * b for i, b in zip(low, block, strict=True))
    span = tuple(b - o for b, o in zip(box.stop, origin, strict=True))
    grid = BlockGrid(span, block)
    return [
        Box.of_shape(block, tuple(i * b + o for i, b, o in zip(index, block, origin, strict=True)))
        for index in grid.indices()
    ]


def needed(box: Box, mode: str) -> Box:
    """The output voxels that tiles must be known on to render `box`: whole cells and halo."""
    around = cells(box)
    whole = Box(around[0].start, around[-1].stop)
    return whole.pad((_halo(mode),) * box.ndim)


def spill(mode: str) -> int:
    """How far beyond a tile's own voxels it can matter for the result."""
    return max(_CELL[2]) + max(_CELL[3]) + _halo(mode)


def _halo(mode: str) -> int:
    return MULTIBAND_HALO if mode == "multiband" else 0


def render(
    box: Box, views: Sequence[TileView], *, mode: str, interpolation: str, dtype: np.dtype
) -> tuple[Num[np.ndarray, "..."], UInt8[np.ndarray, "..."]]:
    """Fused voxels and the number of tiles on each.

    Args:
        box: output voxels.
        views: the tiles that touch `needed(box, mode)`, in their canonical order.
        mode: one of `blend.BLENDINGS`.
        interpolation: one of `warp.INTERPOLATIONS`.
        dtype: of the result; floats are rounded half to even and clipped to its range.

    Returns:
        Arrays of the shape of the box; 0 where there is no tile.
    """
    values = np.zeros(box.shape, dtype)
    count = np.zeros(box.shape, np.uint8)
    halo = (_halo(mode),) * box.ndim
    for cell in cells(box):
        inside = cell & box
        target = cell.pad(halo)
        near = [v for v in views if v.footprint & target]
        pieces = [w for v in near if (w := warp(v, target, interpolation)) is not None]
        if not pieces:
            continue
        crop = inside.relative_to(target.start).slices
        place = inside.relative_to(box.start).slices
        values[place] = _cast(blend(target, pieces, mode)[crop], dtype)
        count[place] = coverage(target, pieces)[crop]
    return values, count


def _cast(values: Float[np.ndarray, "..."], dtype: np.dtype) -> Num[np.ndarray, "..."]:
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # float32 cannot hold the largest uint32: clip to the largest float below it.
    top = np.nextafter(np.float32(limits.max), np.float32(0)) if limits.bits > 16 else limits.max
    return np.clip(np.rint(values), limits.min, top).astype(dtype)
