"""What one chunk sees of the displacement between two volumes: a match per node.

The map so far leads from the fixed to the moving volume. The moving chunk is drawn through it, and
what is left is measured at the nodes inside the chunk: over a search range by correlation of
patches, or by one step of image deformation (`kernels.flow.deform`) to a fraction of a voxel.
A chunk knows the map well beyond its own voxels, so a node's match is the same whichever chunk
it lies in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Float32

from warpbeam.kernels.flow.deform import EFFECTIVE_WINDOW, HALO, deformation_step, deformed
from warpbeam.kernels.flow.match import MatchSettings, match
from warpbeam.kernels.flow.pyramid import padded, smoothed
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.interpolate import offsets_at

Volume = Float32[np.ndarray, "_ _ _"]
Field = Float[np.ndarray, "d *nodes"]

# Keys' cubic looks at two nodes either side.
_NODES_AROUND = 2
_MARGIN = HALO + 1
# Moving chunks of nearly the same size share one compiled program.
_BUCKET = 32
# Regions are whole bands of `kernels.flow.deform`.
_WHOLE = 16
_MIN_COVERAGE = 0.25
_MIN_SIGNIFICANCE = 3.5
_PEAK_ERROR = 0.5  # voxels of the level: standard error of a peak between voxels
# Noise of smoothed images hangs together over so many voxels.
_GRAIN = 12.0
# A match is never believed to be better than this, in edges of a voxel: interpolation, and windows
# that see a bend.
_LEAST_ERROR = 0.2


@dataclass(frozen=True)
class Pass:
    """One look at the whole volume.

    Attributes:
        window: width of the weights, or side of the patch, voxels of the level, zyx.
        search: how far a patch is looked for, voxels of the level; None for a deformation step.
        every: patches are matched at every so many-th node.
        size: of a voxel of the level, zyx, in units of the shortest edge of a fixed voxel.
    """

    window: tuple[float, ...]
    search: tuple[int, ...] | None
    every: int
    size: tuple[float, ...]


@dataclass(frozen=True)
class Matches:
    """Of each node: `shift`, how far the map so far is off (NaN: not known); its inverse
    covariance; and the correlation under the window. Lengths in shortest edges of a voxel."""

    shift: Field
    information: Float[np.ndarray, "d d *nodes"]
    ncc: Float[np.ndarray, "*nodes"]


@dataclass(frozen=True)
class Area:
    """A block of nodes and the voxels around them, all in voxels of one level.

    Attributes:
        nodes: those that are asked for, indices.
        block: those that are measured, which may leave the lattice: as many in every area.
        wide: those that are needed to know the map, indices; may leave the lattice.
        region: voxels of the fixed level to look at; may leave the volume.
    """

    nodes: Box
    block: Box
    wide: Box
    region: Box

    @classmethod
    def around(
        cls,
        lattice: Lattice,
        nodes: Box,
        most: tuple[int, ...],
        given: Pass,
        extent: tuple[int, ...],
    ) -> Area:
        """The area of a block of at most `most` nodes, of a size that all blocks share.

        Args:
            lattice: all nodes, in voxels of the level.
            extent: voxels of the level; an axis with a single block looks at no more.
        """
        search = given.search or (0,) * lattice.ndim
        block, wide, region = [], [], []
        for axis, (first, count) in enumerate(zip(nodes.start, most, strict=True)):
            if count >= lattice.shape[axis]:
                block.append((0, lattice.shape[axis]))
                wide.append((0, lattice.shape[axis]))
                region.append((0, extent[axis]))
                continue
            stride = lattice.stride[axis]
            reach = given.window[axis] / 2 + search[axis] + _MARGIN
            halo = math.ceil((reach + 1) / stride) + _NODES_AROUND
            block.append((first, first + count))
            wide.append((first - halo, first + count + halo))
            start = math.floor(lattice.origin[axis] + stride * first - reach)
            region.append((start, start + math.ceil(stride * (count - 1) + 2 * reach) + 2))
        whole = [(a, a + -(-(b - a) // _WHOLE) * _WHOLE) for a, b in region]
        return cls(nodes, _box(block), _box(wide), _box(whole))

    @property
    def inner(self) -> Box:
        """The measured nodes within the wide ones."""
        return self.block.relative_to(self.wide.start)


def _box(ends: list[tuple[int, int]]) -> Box:
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def widened(m: CoordinateMap, nodes: Box) -> CoordinateMap:
    """The map on a box of node indices that may leave the lattice; continued along its last
    links."""
    u = m.u
    for axis, (first, stop) in enumerate(zip(nodes.start, nodes.stop, strict=True), start=1):
        index, last = np.arange(first, stop), u.shape[axis] - 1
        held = np.clip(index, 0, last)
        inner = np.clip(np.where(index < 0, 1, np.where(index > last, last - 1, held)), 0, last)
        beyond = np.abs(index - held).reshape([-1 if a == axis else 1 for a in range(u.ndim)])
        edge = u.take(held, axis)
        u = edge + beyond * (edge - u.take(inner, axis))
    start = zip(m.origin, nodes.start, m.stride, strict=True)
    return CoordinateMap(u, tuple(o + i * s for o, i, s in start), m.stride)


def moving_box(m: CoordinateMap, area: Area) -> Box:
    """The voxels of the moving level that an area can lead to: the box around the image of all
    nodes about its region, not of its corners alone."""
    low = np.array(area.region.start) - np.array(m.stride)
    high = np.array(area.region.stop) + np.array(m.stride)
    near = Box(
        tuple(math.floor((a - o) / s) for a, o, s in zip(low, m.origin, m.stride, strict=True)),
        tuple(math.ceil((b - o) / s) + 1 for b, o, s in zip(high, m.origin, m.stride, strict=True)),
    )
    reached = m.crop(near).absolute.reshape(m.ndim, -1)
    return Box(
        tuple((np.floor(reached.min(axis=1)) - _MARGIN).astype(int).tolist()),
        tuple((np.ceil(reached.max(axis=1)) + _MARGIN + 1).astype(int).tolist()),
    )


def measure(
    fixed: Volume,
    moving: Volume,
    m: CoordinateMap,
    boxes: tuple[Area, Box],
    given: Pass,
    contrasts: tuple[tuple[float, float], tuple[float, float]],
) -> Matches:
    """The matches of the nodes of an area.

    Args:
        fixed: the area's region of the level; NaN = no data.
        moving: the box of the moving level, likewise, in the grey values of the fixed volume.
        m: the map so far on the area's wide nodes, fixed level to moving level.
        boxes: the area, and the box of `moving`.
        given: what to measure.
        contrasts: mean and deviation of the whole fixed and moving volume.
    """
    area, box = boxes
    local = _local(m, area.region, box)
    # what is cut at the end of the volume becomes as large as the rest: one program more for
    # each shape would cost more than the voxels
    images = (padded(fixed, None, 1), padded(moving, None, _BUCKET, fixed.shape))
    ready = [smoothed(im, *c, halo=HALO) for im, c in zip(images, contrasts, strict=True)]
    if not all(np.isfinite(im).any() for im in (fixed, moving)):
        return _nothing(area.nodes.shape)
    if given.search is not None:
        found = _searched(ready[0], ready[1], local, area, given)
    else:
        found = _stepped(ready[0], ready[1], local, area, given)
    return _believed(found, given)


def _local(m: CoordinateMap, region: Box, box: Box) -> CoordinateMap:
    """The map counted from the first voxels of both boxes."""
    shift = np.reshape(np.subtract(region.start, box.start), (-1, *[1] * m.ndim))
    origin = tuple(o - a for o, a in zip(m.origin, region.start, strict=True))
    return CoordinateMap(m.u + shift, origin, m.stride)


def _stepped(
    fixed: jax.Array, moving: jax.Array, m: CoordinateMap, area: Area, given: Pass
) -> Matches:
    step = deformation_step(
        fixed, moving, m.u, m.lattice, window=given.window, min_coverage=_MIN_COVERAGE,
        measured=area.inner,
    )  # fmt: skip
    asked = area.nodes.slices_in(area.block)
    # windows of neighbouring nodes share their voxels
    shared = math.prod(
        max(EFFECTIVE_WINDOW * w / s, 1.0) for w, s in zip(given.window, m.stride, strict=True)
    )
    information = step.information[(slice(None), slice(None), *asked)] / (shared * _GRAIN)
    return Matches(step.shift[(slice(None), *asked)], information, step.ncc[asked])


def _searched(
    fixed: jax.Array, moving: jax.Array, m: CoordinateMap, area: Area, given: Pass
) -> Matches:
    nodes = area.nodes
    drawn = deformed(moving, m.u, m.lattice, area.region.shape)
    out = _nothing(nodes.shape)
    # every so many-th node of the whole lattice, whatever the block
    axes = [np.arange(-(-a // given.every) * given.every, b, given.every) - a
            for a, b in zip(nodes.start, nodes.stop, strict=True)]  # fmt: skip
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, m.ndim)
    if not len(index):
        return out
    patch = np.maximum(np.rint(given.window).astype(int), 1)
    centres = (index + area.inner.start) * np.array(m.stride) + m.origin
    corners = np.rint(centres - (patch - 1) / 2).astype(int) + HALO
    search = given.search or ()
    found = match(
        fixed, drawn, MatchSettings(tuple(patch.tolist()), search, _MIN_COVERAGE, 1, 1),
        corners=corners, starts=np.zeros_like(corners),
    )  # fmt: skip
    good = np.isfinite(found.shift).all(axis=1) & (found.significance >= _MIN_SIGNIFICANCE)
    at = (slice(None), *index[good].T)
    out.shift[at] = found.shift[good].T
    out.ncc[at[1:]] = found.ncc[good]
    weight = np.where(good, found.ncc, 0)[good] ** 2 / _PEAK_ERROR**2 * given.every**m.ndim
    for axis in range(m.ndim):
        out.information[(axis, axis, *at[1:])] = weight
    return out


def _believed(found: Matches, given: Pass) -> Matches:
    """The same in edges of a voxel, with an error of at least `_LEAST_ERROR`."""
    rank = len(given.size)
    size = np.array(given.size, float)
    columns = size.reshape(-1, *[1] * rank)
    matrix = np.moveaxis(found.information, (0, 1), (-2, -1)) / np.multiply.outer(size, size)
    solved = np.linalg.solve(np.eye(rank) + _LEAST_ERROR**2 * matrix, matrix)
    return Matches(found.shift * columns, np.moveaxis(solved, (-2, -1), (0, 1)), found.ncc)


def _nothing(shape: tuple[int, ...]) -> Matches:
    rank = len(shape)
    return Matches(
        np.full((rank, *shape), np.nan), np.zeros((rank, rank, *shape)), np.full(shape, np.nan)
    )


def moved_field(field: CoordinateMap, shift: Field) -> Field:
    """Where matches want the nodes of a displacement `d`: `d(p + shift) + shift`.

    `fixed(p)` looks like `drawn(p + shift)`, and `drawn` was taken at `p + d(p)`.
    """
    known = np.isfinite(shift).all(axis=0)
    held = np.where(known, shift, 0.0)
    at = field.lattice.nodes() + held
    return np.where(known, offsets_at(field, at, "nearest") + held, np.nan)
