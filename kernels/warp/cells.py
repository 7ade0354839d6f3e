"""A map on render cells: where each output voxel comes from.

Output is computed on a fixed grid of cells anchored at voxel 0. All that a cell's result depends
on, the window of the source included, follows from the map's nodes around the cell and from the
extent of the source, so the same voxel gets the same bits however the output is cut into blocks.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap

Float64 = Float[np.ndarray, "..."]
Float32 = Float[np.ndarray, "..."]

# The positions on a cell fill 2 MB in 2-D; a call costs little per voxel.
_CELL = {2: (512, 512), 3: (16, 128, 128)}
# A wider window is cut up: cv2 holds coordinates below 2^15, and float32 ones are good to
# 2^-11 voxel up to here.
_WIDEST = 1 << 13
_HALF = 0.5 + 1e-4  # half a voxel, and what float32 may add


@dataclass(frozen=True)
class Patch:
    """The nodes around a box of output voxels.

    Attributes:
        box: output voxels.
        u: offsets at the nodes, `[component, (z,) y, x]`, float64.
        origin: the first node, at or before the first voxel; the second one lies behind it.
        stride: voxels between nodes.
    """

    box: Box
    u: Float64
    origin: tuple[int | float, ...]
    stride: tuple[int | float, ...]

    @functools.cached_property
    def position(self) -> Float64:
        """M at the nodes, voxels of the source."""
        return CoordinateMap(self.u, self.origin, self.stride).absolute

    @functools.cached_property
    def known(self) -> bool:
        """Whether all nodes are."""
        return bool(np.isfinite(self.u).all())

    @functools.cached_property
    def reach(self) -> tuple[Float64, Float64] | None:
        """The least and the greatest source position of the voxels; None where none is known.

        Multilinear pieces are extreme at their corners: nodes, and the ends of the box.
        """
        position = self.position
        for axis in range(self.box.ndim):
            below, share = self._along(axis)
            ends = _between(position, axis + 1, below[[0, -1]], share[[0, -1]])
            inner = position.take(np.arange(1, position.shape[axis + 1] - 1), axis + 1)
            position = np.concatenate([ends, inner], axis + 1)
        known = position[:, np.isfinite(position).all(axis=0)]
        return (known.min(axis=1), known.max(axis=1)) if known.size else None

    def window(self, extent: Box, reach: int) -> Box:
        """The source voxels that an interpolation looks at, which reaches so far.

        Starts at even voxels, so that halves are rounded the same way in every window.
        """
        span = self.reach
        if span is None:
            return Box(extent.start, extent.start)
        # clipped before the conversion: a wild map may lead beyond the range of integers
        first, stop = np.array(extent.start) - 2 * reach, np.array(extent.stop) + 2 * reach
        low = np.clip(np.floor(span[0]) - reach, first, stop)
        high = np.clip(np.ceil(span[1]) + reach + 1, first, stop)
        return Box(tuple(map(int, low)), tuple(map(int, high))) & extent

    def dense(self, start: tuple[int, ...]) -> Float32:
        """Source positions of all voxels, counted from `start`: `[component, *box]`, float32.

        `cv2.warpAffine` interpolates linearly in float32 since OpenCV 5 (1e-4 voxel here).
        """
        shift = np.reshape(start, (-1, *[1] * self.box.ndim))
        local = self.position - shift
        if self.box.ndim == 3:
            local = _between(local, 1, *self._along(0))
        dense = np.empty((self.box.ndim, *self.box.shape), np.float32)
        planes = dense.reshape(-1, *dense.shape[-2:])
        nodes = local.astype(np.float32).reshape(-1, *local.shape[-2:])
        for plane, part in zip(planes, nodes, strict=True):
            self._draw_plane(plane, part)
        return dense

    def exact(self) -> Float64:
        """Source positions of all voxels, `[component, *box]`, float64."""
        position = self.u
        for axis in reversed(range(self.box.ndim)):
            position = _between(position, axis + 1, *self._along(axis))
        voxels = (np.arange(a, b) for a, b in zip(self.box.start, self.box.stop, strict=True))
        # added last: whole offsets, and halves, remain what they are
        for part, along in zip(position, np.meshgrid(*voxels, indexing="ij", sparse=True),
                               strict=True):  # fmt: skip
            part += along
        return position

    def _draw_plane(self, out: Float32, nodes: Float32) -> None:
        (y, x), (height, width) = self.box.start[-2:], self.box.shape[-2:]
        (oy, ox), (sy, sx) = self.origin[-2:], self.stride[-2:]
        to_nodes = np.array([[1 / sx, 0, (x - ox) / sx], [0, 1 / sy, (y - oy) / sy]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(
            nodes, to_nodes, (width, height), out, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )

    def _along(self, axis: int) -> tuple[np.ndarray, Float64]:
        voxels = np.arange(self.box.start[axis], self.box.stop[axis])
        index = (voxels - self.origin[axis]) / self.stride[axis]
        below = np.clip(np.floor(index), 0, self.u.shape[axis + 1] - 2).astype(np.int64)
        return below, index - below


def cells(box: Box) -> Iterator[Box]:
    """The render cells that share a voxel with `box`, whole."""
    block = _CELL[box.ndim]
    starts = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, block, strict=True)]
    return (Box.of_shape(block, start) for start in itertools.product(*starts))


def patches(m: CoordinateMap, box: Box, extent: Box, reach: int) -> Iterator[tuple[Patch, Box]]:
    """The cells of a box with the windows of the source that they need.

    A cell whose window is wide is halved until it is not: what a fold or a coarse output does.
    Cells that see nothing of the source are left out.
    """
    for cell in cells(box):
        yield from _halved(m, cell, extent, reach)


def _halved(m: CoordinateMap, box: Box, extent: Box, reach: int) -> Iterator[tuple[Patch, Box]]:
    patch = surround(m, box)
    window = patch.window(extent, reach)
    if not window:
        return
    # in 3-D planes are laid out below each other for cv2
    rows = window.shape[-2] * (window.shape[0] if box.ndim == 3 else 1)
    wide = max(rows, window.shape[-1]) > _WIDEST
    if not wide or max(box.shape) == 1:
        yield patch, window
        return
    axis = int(np.argmax(box.shape))
    middle = (box.start[axis] + box.stop[axis]) // 2
    stop, start = list(box.stop), list(box.start)
    stop[axis] = start[axis] = middle
    yield from _halved(m, Box(box.start, tuple(stop)), extent, reach)
    yield from _halved(m, Box(tuple(start), box.stop), extent, reach)


def surround(m: CoordinateMap, box: Box) -> Patch:
    """The nodes around a box; one more beyond the lattice, along its last link, then NaN."""
    u = m.u
    first_node = []
    for axis, (start, stop) in enumerate(zip(box.start, box.stop, strict=True)):
        origin, stride = m.origin[axis], m.stride[axis]
        first = math.floor((start - origin) / stride)
        last = max(math.ceil((stop - 1 - origin) / stride), first + 1)
        index = np.arange(first, last + 1)
        u = _take(u, axis + 1, index)
        first_node.append(float(origin + first * stride))
    return Patch(box, u.astype(np.float64), tuple(first_node), m.stride)


def covered(position: Float64, extent: Box, start: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    """Which positions, counted from `start`, lie on the extent or half a voxel beyond it."""
    inside = np.ones(position.shape[1:], bool)
    for part, a, b, o in zip(position, extent.start, extent.stop, start, strict=True):
        inside &= (part >= a - o - _HALF) & (part <= b - 1 - o + _HALF)
    return inside


def _take(u: np.ndarray, axis: int, index: np.ndarray) -> np.ndarray:
    """Nodes along an axis, one extrapolated at either end, NaN beyond."""
    count = u.shape[axis]
    values = u.take(np.clip(index, 0, count - 1), axis)
    along = np.moveaxis(values, axis, 0)
    for at, end, inner in ((-1, 0, min(1, count - 1)), (count, count - 1, max(count - 2, 0))):
        along[index == at] = 2 * u.take(end, axis) - u.take(inner, axis)
    along[(index < -1) | (index > count)] = np.nan
    return values


def _between(values: Float64, axis: int, below: np.ndarray, share: Float64) -> Float64:
    low = values.take(below, axis)
    weight = share.reshape(-1, *[1] * (values.ndim - 1 - axis))
    return low + (values.take(below + 1, axis) - low) * weight
