"""A map on render cells: where each output voxel comes from.

Output is computed on a fixed grid of cells anchored at voxel 0, which end where the whole output
ends. All that a cell's result depends on, the window of the source included, follows from the map's
nodes around the cell and from the extent of the source, so the same voxel gets the same bits
however the output is cut into blocks.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        corners = [
            tuple(np.concatenate([m[[0, -1]], np.eye(m.shape[1])[1:-1]]) for m in self._along(axis))
            for axis in range(self.box.ndim)
        ]
        position = _spread(self.position, corners)
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
        """Source positions of all voxels, counted from `start`: `[component, *box]`, float32."""
        shift = np.reshape(start, (-1, *[1] * self.box.ndim))
        local = (self.position - shift).astype(np.float32)
        along = [
            tuple(m.astype(np.float32) for m in self._along(axis)) for axis in range(self.box.ndim)
        ]
        return _spread(local, along)

    def exact(self) -> Float64:
        """Source positions of all voxels, `[component, *box]`, float64."""
        position = self.u
        for axis in reversed(range(self.box.ndim)):
            below, share = self._between(axis)
            position = _mixed(position, axis + 1, below, share)
        voxels = (np.arange(a, b) for a, b in zip(self.box.start, self.box.stop, strict=True))
        # added last: whole offsets, and halves, remain what they are
        for part, along in zip(position, np.meshgrid(*voxels, indexing="ij", sparse=True),
                               strict=True):  # fmt: skip
            part += along
        return position

    def _between(self, axis: int) -> tuple[np.ndarray, Float64]:
        """The node below each voxel along an axis, and how far that lies towards the next."""
        start, stop = self.box.start[axis], self.box.stop[axis]
        return _steps(start, stop, self.origin[axis], self.stride[axis], self.u.shape[axis + 1])

    def _along(self, axis: int) -> tuple[Float64, Float64]:
        """See `_matrices`."""
        start, stop = self.box.start[axis], self.box.stop[axis]
        return _matrices(start, stop, self.origin[axis], self.stride[axis], self.u.shape[axis + 1])


@functools.lru_cache(maxsize=256)
def _steps(
    start: int, stop: int, origin: float, stride: float, nodes: int
) -> tuple[np.ndarray, Float64]:
    index = (np.arange(start, stop) - origin) / stride
    below = np.clip(np.floor(index), 0, nodes - 2).astype(np.int64)
    return below, index - below


@functools.lru_cache(maxsize=256)
def _matrices(
    start: int, stop: int, origin: float, stride: float, nodes: int
) -> tuple[Float64, Float64]:
    """What each node is worth at each voxel of an axis, and whether it counts: `[voxel, node]`."""
    below, share = _steps(start, stop, origin, stride, nodes)
    weights, counts = np.zeros((2, len(below), nodes))
    rows = np.arange(len(below))
    weights[rows, below], weights[rows, below + 1] = 1 - share, share
    counts[rows, below] = counts[rows, below + 1] = 1
    return weights, counts


def cells(box: Box, bounds: Box | None = None) -> Iterator[Box]:
    """The render cells that share a voxel with `box`, whole but for what is out of bounds."""
    block = _CELL[box.ndim]
    starts = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, block, strict=True)]
    for start in itertools.product(*starts):
        cell = Box.of_shape(block, start)
        yield cell if bounds is None else cell & bounds


def patches(
    m: CoordinateMap, box: Box, extent: Box, reach: int, bounds: Box | None = None
) -> Iterator[tuple[Patch, Box]]:
    """The cells of a box with the windows of the source that they need.

    A cell whose window is wide is halved until it is not: what a fold or a coarse output does.
    Cells that see nothing of the source are left out.
    """
    for cell in cells(box, bounds):
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
        u = _take(u, axis + 1, np.arange(first, last + 1))
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
    if index[0] >= 0 and index[-1] < count:
        return u.take(index, axis)
    values = u.take(np.clip(index, 0, count - 1), axis)
    along = np.moveaxis(values, axis, 0)
    for at, end, inner in ((-1, 0, min(1, count - 1)), (count, count - 1, max(count - 2, 0))):
        along[index == at] = 2 * u.take(end, axis) - u.take(inner, axis)
    along[(index < -1) | (index > count)] = np.nan
    return values


def _mixed(values: Float64, axis: int, below: np.ndarray, share: Float64) -> Float64:
    low = values.take(below, axis)
    weight = share.reshape(-1, *[1] * (values.ndim - 1 - axis))
    return low + (values.take(below + 1, axis) - low) * weight


def _spread(values: np.ndarray, along: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
    """Values at nodes brought to voxels by the matrices of each axis; NaN next to NaN.

    Products of small matrices are several times faster than interpolation voxel by voxel.
    """
    unknown = ~np.isfinite(values).all(axis=0)
    if not unknown.any():
        return _product(values, [weights for weights, _ in along])
    spread = _product(np.where(unknown, 0, values), [weights for weights, _ in along])
    touched = _product(unknown[None].astype(values.dtype), [counts for _, counts in along])
    spread[:, touched[0] > 0] = np.nan
    return spread


def _product(values: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """`[component, *nodes]` -> `[component, *voxels]`, the last axis first: it is the cheapest."""
    values = values @ matrices[-1].T
    for axis in range(len(matrices) - 2, -1, -1):
        lead, (n, *rest) = values.shape[: axis + 1], values.shape[axis + 1 :]
        flat = np.matmul(matrices[axis], values.reshape(*lead, n, -1))
        values = flat.reshape(*lead, -1, *rest)
    return values
