"""One tile drawn on a box of output voxels.

A voxel is an area: a tile of n voxels covers [-1/2, n - 1/2], and what lies in its outer
half voxel takes the value of the border. Linear interpolation in 2-D is
`cv2.warpAffine`, which since OpenCV 5 evaluates coordinates in float32 (measured: 1e-5 px
from exact; older versions rounded to 1/32 px).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box

Image = Float[np.ndarray, "..."]
Float64 = Float[np.ndarray, "..."]

_CV2_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
_SPLINE_ORDER = {"nearest": 0, "linear": 1, "cubic": 3}
INTERPOLATIONS = tuple(_CV2_FLAGS)
# Voxels beyond the mapped box that a kernel reaches; cubic splines in 3-D ring for ten.
_REACH = {"nearest": 1, "linear": 2, "cubic": 3, "lanczos": 5}
_SPLINE_REACH = 12


@dataclass(frozen=True)
class Warped:
    """A tile on a box of output voxels.

    Attributes:
        box: the output voxels drawn on.
        values: float32, the shape of the box; meaningless where not `valid`.
        shape: shape of the whole tile.
        inverse: homogeneous map from output voxels to voxels of the tile.
        unmasked: which voxels the tile's mask allows; None means all.
    """

    box: Box
    values: Image
    shape: tuple[int, ...]
    inverse: affine.Matrix
    unmasked: Bool[np.ndarray, "..."] | None

    @functools.cached_property
    def from_centre(self) -> tuple[Image, ...]:
        """Per axis the distance, in source voxels and with its sign, from the tile's centre.

        Broadcastable to the box: an axis that does not matter has length 1.
        """
        return source_coordinates(self.inverse, self.box, [(n - 1) / 2 for n in self.shape])

    @functools.cached_property
    def valid(self) -> Bool[np.ndarray, "..."] | None:
        """Which voxels the tile really covers; None means all, the usual case inside a tile."""
        half = np.array(self.shape) / 2 + 1e-6
        ends = affine.apply(self.inverse, affine.corners(self.box))
        if (np.abs(ends - (np.array(self.shape) - 1) / 2) <= half).all():
            return self.unmasked
        inside = np.ones((1,) * self.box.ndim, bool)
        for values, limit in zip(self.from_centre, half, strict=True):
            inside = inside & (np.abs(values) <= np.float32(limit))
        inside = np.broadcast_to(inside, self.box.shape)
        return inside if self.unmasked is None else inside & self.unmasked


def reach(interpolation: str, ndim: int) -> int:
    """How far, in source voxels, an interpolation looks beyond the mapped box."""
    return _SPLINE_REACH if ndim == 3 and interpolation == "cubic" else _REACH[interpolation]


def warp(view: TileView, target: Box, interpolation: str = "linear") -> Warped | None:
    """Draws a tile on `target`; None where they do not meet.

    The result is a function of the tile and of `target` alone, not of the window that
    happens to be loaded: the same box gives the same bits in any surroundings.

    Raises:
        ValueError: `lanczos` in 3-D, or an unknown interpolation.
    """
    ndim = target.ndim
    if interpolation not in _CV2_FLAGS or (ndim == 3 and interpolation == "lanczos"):
        raise ValueError(f"no {interpolation!r} interpolation in {ndim}-D")
    box = view.footprint & target
    if not box:
        return None
    source, window = view.crop(
        source_box(view.inverse, view.shape, box, reach(interpolation, ndim))
    )
    if not window:
        return None
    local = affine.translation([-float(s) for s in window.start]) @ view.inverse
    values = _resample(source, local, box, interpolation)
    unmasked = None
    if view.mask is not None:
        unmasked = _resample(view.crop_mask(window), local, box, "linear") > 0.999
    return Warped(box, values, view.shape, view.inverse, unmasked)


def source_coordinates(
    inverse: affine.Matrix, box: Box, origin: Sequence[float]
) -> tuple[Image, ...]:
    """Per axis the source coordinate, counted from `origin`, of each voxel of a box.

    The large numbers are summed in float64 along one axis only, so that the full-size
    arrays can be float32.
    """
    rows = [_row(inverse[i], box) for i in range(box.ndim)]
    if affine.is_affine(inverse):
        rows = [[np.asarray(r[0] - o), *r[1:]] for r, o in zip(rows, origin, strict=True)]
        return tuple(_sum_float32(r) for r in rows)
    scale = _sum_float64(_row(inverse[-1], box))
    return tuple(
        (_sum_float64(r) / scale - o).astype(np.float32) for r, o in zip(rows, origin, strict=True)
    )


def _row(coefficients: Float[np.ndarray, " d1"], box: Box) -> list[Float64]:
    """The terms of one row of the map: the constant, then one per axis that matters."""
    terms = [np.full((1,) * box.ndim, coefficients[-1])]
    for axis, (start, stop) in enumerate(zip(box.start, box.stop, strict=True)):
        if coefficients[axis] != 0.0:
            shape = [1] * box.ndim
            shape[axis] = -1
            terms.append(coefficients[axis] * np.arange(start, stop).reshape(shape))
    return terms


def _sum_float64(terms: list[Float64]) -> Float64:
    return functools.reduce(np.add, terms)


def _sum_float32(terms: list[Float64]) -> Image:
    constant, *along = terms
    if not along:
        return constant.astype(np.float32)
    return functools.reduce(np.add, [(along[0] + constant).astype(np.float32), *(
        t.astype(np.float32) for t in along[1:]
    )])  # fmt: skip


def _resample(source: Image, inverse: affine.Matrix, box: Box, interpolation: str) -> Image:
    """`source` at `inverse @ p` for each voxel p of the box, borders repeated."""
    local = inverse @ affine.translation([float(s) for s in box.start])
    if box.ndim == 2:
        return _resample_plane(source, local, box.shape, interpolation)
    if _keeps_planes(local):
        return _resample_planes(source, local, box.shape, interpolation)
    order = _SPLINE_ORDER[interpolation]
    if affine.is_affine(local):
        return ndimage.affine_transform(
            source, local[:-1, :-1], local[:-1, -1], box.shape, order=order, mode="nearest"
        )
    points = source_coordinates(local, Box.of_shape(box.shape), (0.0,) * box.ndim)
    stacked = np.stack(np.broadcast_arrays(*points))
    return ndimage.map_coordinates(source, stacked, order=order, mode="nearest")


def _resample_plane(
    source: Image, local: affine.Matrix, shape: tuple[int, ...], interpolation: str
) -> Image:
    swap = [1, 0, 2]  # cv2 counts x before y
    matrix = local[swap][:, swap]
    size = (shape[1], shape[0])
    flags = _CV2_FLAGS[interpolation] | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    if affine.is_affine(local):
        return cv2.warpAffine(source, matrix[:2], size, flags=flags, borderMode=border)
    return cv2.warpPerspective(source, matrix, size, flags=flags, borderMode=border)


def _keeps_planes(local: affine.Matrix) -> bool:
    """Whether z and yx do not mix, as for stage positions and in-plane affines."""
    return affine.is_affine(local) and not local[0, 1:3].any() and not local[1:3, 0].any()


def _resample_planes(
    source: Image, local: affine.Matrix, shape: tuple[int, ...], interpolation: str
) -> Image:
    """Interpolates in z first, then each plane in yx: one 2-D warp per output plane."""
    along_z = local[0, 0] * np.arange(shape[0]) + local[0, 3]
    if interpolation == "cubic":
        y, x = map(np.arange, source.shape[1:])
        points = np.stack(np.meshgrid(along_z, y, x, indexing="ij"))
        planes = ndimage.map_coordinates(source, points, order=3, mode="nearest")
    else:
        planes = _between_planes(source, along_z, nearest=interpolation == "nearest")
    in_plane = local[1:, 1:]
    return np.stack([_resample_plane(p, in_plane, shape[1:], interpolation) for p in planes])


def _between_planes(source: Image, along_z: Float[np.ndarray, " n"], *, nearest: bool) -> Image:
    last = len(source) - 1
    if nearest:
        return source[np.clip(np.rint(along_z), 0, last).astype(int)]
    position = np.clip(along_z, 0, last)
    below = np.minimum(position.astype(int), max(last - 1, 0))
    above = np.minimum(below + 1, last)
    share = (position - below).astype(np.float32)[:, None, None]
    return source[below] * (1 - share) + source[above] * share
