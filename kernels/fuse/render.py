"""Fused voxels of any box, cell by cell.

shard                     Everything is computed on *render cells*: a fixed grid
+-------+-------+---      anchored at voxel 0 of the output. A cell's result depends
| cell  | cell  |         on the tiles and on the cell alone, so the fused image is
+-------+-------+---      the same to the bit however the output is cut into shards.
| cell  | cell  |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, Num, UInt8

from warpbeam.kernels.fuse.blend import MULTIBAND_HALO, blend, coverage
from warpbeam.kernels.fuse.view import TileView
from warpbeam.kernels.fuse.warp import warp, warp_into
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box

# Regions thinner than this cost more than they save.
_THINNEST = 24
# Small enough that a cell's few float32 arrays stay in the L2 cache (256 KB each), and
# that many cells lie in one tile only; large enough that a call costs little per voxel.
_CELL = {2: (1024, 1024), 3: (16, 64, 64)}


def cells(box: Box) -> Iterator[Box]:
    """The render cells that share a voxel with `box`, whole."""
    block = _CELL[box.ndim]
    starts = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, block, strict=True)]
    return (Box.of_shape(block, start) for start in itertools.product(*starts))


def needed(box: Box, mode: str) -> Box:
    """The output voxels that tiles must be known on to render `box`: whole cells and halo."""
    block = _CELL[box.ndim]
    start = tuple(a // n * n for a, n in zip(box.start, block, strict=True))
    stop = tuple(-(-b // n) * n for b, n in zip(box.stop, block, strict=True))
    return Box(start, stop).pad((_halo(mode),) * box.ndim)


def spill(mode: str) -> int:
    """How far beyond a tile's own voxels it can matter for the result."""
    return max(_CELL[2]) + max(_CELL[3]) + _halo(mode)


def _halo(mode: str) -> int:
    return MULTIBAND_HALO if mode == "multiband" else 0


def render(
    box: Box,
    views: Sequence[TileView],
    *,
    mode: str,
    interpolation: str,
    dtype: np.dtype,
    margin: int = 0,
    count: UInt8[np.ndarray, "..."] | None = None,
    out: Num[np.ndarray, "..."] | None = None,
) -> Num[np.ndarray, "..."]:
    """Fused voxels.

    Args:
        box: output voxels.
        views: the tiles that touch `needed(box, mode)`, in their canonical order.
        mode: one of `blend.BLENDINGS`.
        interpolation: one of `warp.INTERPOLATIONS`.
        margin: see `blend`.
        dtype: of the result; floats are rounded half to even and clipped to its range.
        count: of the shape of the box; gets the number of tiles on each voxel (at most 255).
        out: of the shape of the box and the dtype; gets the result.

    Returns:
        An array of the shape of the box; 0 where there is no tile.
    """
    values = np.empty(box.shape, dtype) if out is None else out
    values[...] = 0
    if count is not None:
        count[...] = 0
    halo = (_halo(mode),) * box.ndim
    for cell in cells(box):
        around = cell.pad(halo)
        near = [view for view in views if view.footprint.meets(around)]
        for region, tiles in _regions(cell, near, mode):
            inside = region & box
            if not inside:
                continue
            place = inside.slices_in(box)
            alone = len(tiles) == 1 and inside == region and not any(halo)
            if alone and warp_into(tiles[0], region, interpolation, values[place]):
                if count is not None:
                    count[place] = 1
                continue
            target = region.pad(halo) if any(halo) else region
            # What nothing is mixed with need not leave its dtype.
            exact = len(tiles) == 1 and tiles[0].pixels.dtype == dtype
            warped = (warp(view, target, interpolation, exact=exact) for view in tiles)
            pieces = [piece for piece in warped if piece is not None]
            if not pieces:
                continue
            crop = inside.slices_in(target)
            _store(blend(target, pieces, mode, margin)[crop], values[place])
            if count is not None:
                count[place] = coverage(target, pieces)[crop]
    return values


def covered_samples(
    box: Box, views: Sequence[TileView], sample: Sequence[slice]
) -> Bool[np.ndarray, "..."]:
    """Whether any tile lies on each of the voxels that `sample` takes out of a box.

    Cheap beside `render`, where only shares and samples of the covered voxels are wanted.
    """
    ends = zip(box.start, box.stop, sample, strict=True)
    samples = [np.arange(a, b)[part] for a, b, part in ends]
    found = np.zeros([len(along) for along in samples], bool)
    for view in views:
        reach = zip(samples, view.footprint.start, view.footprint.stop, strict=True)
        near = tuple(slice(*np.searchsorted(along, (a, b)).tolist()) for along, a, b in reach)
        if not found[near].all():
            own = [along[part] for along, part in zip(samples, near, strict=True)]
            found[near] |= _covers(view, own)
    return found


def _covers(view: TileView, samples: Sequence[Int[np.ndarray, "_"]]) -> Bool[np.ndarray, "..."]:
    """Whether a tile lies on each voxel of a lattice, given by its indices along each axis."""
    axes = np.meshgrid(*samples, indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1).astype(np.float64)
    at = affine.apply(view.inverse, points)
    if view.bend is not None:
        at = view.bend.bent(at)
    inside = ((at >= -0.5) & (at <= np.array(view.shape) - 0.5)).all(axis=1)
    if view.mask is not None:
        last = np.array(view.mask.shape) - 1
        index = np.clip(np.rint(at).astype(int) - np.array(view.window.start), 0, last)
        inside &= view.mask[tuple(index.T)].astype(bool)
    return inside.reshape(axes[0].shape)


def _regions(
    cell: Box, views: Sequence[TileView], mode: str, axis: int = 0
) -> Iterator[tuple[Box, Sequence[TileView]]]:
    """Cuts a cell along the tiles' outlines, so that most of it lies in one tile only.

    +------+--+-------+     Where there is one tile there is nothing to weigh.
    |  A   |AB|   B   |     Cuts only save work: a region may well hold a tile's edge.
    +------+--+-------+
    """
    if len(views) < 2 or axis == cell.ndim or _halo(mode):
        yield cell, views
        return
    first, last = cell.start[axis], cell.stop[axis]
    ends = {end for v in views for end in (v.footprint.start[axis], v.footprint.stop[axis])}
    cuts = [first]
    for end in sorted(ends):
        if cuts[-1] + _THINNEST <= end <= last - _THINNEST:
            cuts.append(end)
    for start, stop in itertools.pairwise([*cuts, last]):
        part = Box(
            (*cell.start[:axis], start, *cell.start[axis + 1 :]),
            (*cell.stop[:axis], stop, *cell.stop[axis + 1 :]),
        )
        inside = [view for view in views if view.footprint.meets(part)]
        yield from _regions(part, inside, mode, axis + 1)


def _store(values: Num[np.ndarray, "..."], out: Num[np.ndarray, "..."]) -> None:
    """Puts values into `out`: as they are, or rounded half to even and clipped to its range."""
    if values.dtype != out.dtype and np.issubdtype(out.dtype, np.integer):
        limits = np.iinfo(out.dtype)
        # float32 cannot hold the largest uint32: clip to the largest float below it.
        wide = limits.bits > 16
        top = np.nextafter(np.float32(limits.max), np.float32(0)) if wide else limits.max
        values = np.rint(values)
        np.clip(values, limits.min, top, out=values)
    out[...] = values
