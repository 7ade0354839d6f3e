"""One tile drawn on a box of output voxels.

A voxel is an area: a tile of n voxels covers [-1/2, n - 1/2], and what lies in its outer
half voxel takes the value of the border. Linear interpolation in 2-D is
`cv2.warpAffine`, which since OpenCV 5 evaluates coordinates in float32 (measured: 1e-5 px
from exact; older versions rounded to 1/32 px).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import ndimage

from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box

Image = Float[np.ndarray, "..."]
Float64 = Float[np.ndarray, "..."]

# cv2 counts x before y.
_XY = np.array([1, 0, 2])
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
        values: the shape of the box; meaningless where not `valid`.
        shape: shape of the whole tile.
        inverse: homogeneous map from output voxels to voxels of the tile.
        window: the voxels of the tile that were looked at.
        unmasked: which voxels the tile's mask allows; None means all.
    """

    box: Box
    values: Num[np.ndarray, "..."]
    shape: tuple[int, ...]
    inverse: affine.Matrix
    window: Box
    unmasked: Bool[np.ndarray, "..."] | None

    def spread(self, profile: Callable[[int], Image]) -> Image:
        """A separable image over the tile, drawn on the box.

        Args:
            profile: gives the values along an axis of n voxels, not negative, and tiny at
                both ends.

        Returns:
            The product of the profiles; 0 from one voxel outside the tile on.
        """
        ends = zip(self.shape, self.window.start, self.window.stop, strict=True)
        along = [profile(n)[a:b] for n, a, b in ends]
        local = affine.recentre(self.inverse, self.window.start, self.box.start)
        product = functools.reduce(np.multiply.outer, along)
        return _resample(product, local, self.box.shape, "linear", outside=0.0)

    def from_centre(self, axis: int) -> Image:
        """The distance along an axis, in source voxels and with its sign, from the tile's centre.

        Broadcastable to the box: an axis that does not matter has length 1.
        """
        return _coordinate(self.inverse, self.box, axis, (self.shape[axis] - 1) / 2)

    @functools.cached_property
    def valid(self) -> Bool[np.ndarray, "..."] | None:
        """Which voxels the tile really covers; None means all, the usual case inside a tile."""
        half = np.array(self.shape) / 2 + 1e-6
        ends = affine.apply(self.inverse, affine.corners(self.box))
        beyond = np.abs(ends - (np.array(self.shape) - 1) / 2).max(axis=0) > half
        inside = self.unmasked
        for axis in np.flatnonzero(beyond):
            on_axis = np.abs(self.from_centre(int(axis))) <= np.float32(half[axis])
            inside = on_axis if inside is None else inside & on_axis
        return None if inside is None else np.broadcast_to(inside, self.box.shape)


def reach(interpolation: str, ndim: int) -> int:
    """How far, in source voxels, an interpolation looks beyond the mapped box."""
    return _SPLINE_REACH if ndim == 3 and interpolation == "cubic" else _REACH[interpolation]


def warp(
    view: TileView, target: Box, interpolation: str = "linear", *, exact: bool = False
) -> Warped | None:
    """Draws a tile on `target`; None where they do not meet.

    Args:
        view: the tile.
        target: output voxels.
        interpolation: one of `INTERPOLATIONS`.
        exact: leave the values in the tile's dtype where that is possible.

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
    local = affine.recentre(view.inverse, window.start, box.start)
    values = _resample(source, local, box.shape, interpolation)
    unmasked = None
    if view.mask is not None:
        unmasked = _resample(view.crop_mask(window), local, box.shape, "linear") > 0.999
    return Warped(box, values, view.shape, view.inverse, window, unmasked)


def _coordinate(inverse: affine.Matrix, box: Box, axis: int, origin: float) -> Image:
    """The source coordinate on one axis, counted from `origin`, of each voxel of a box.

    The large numbers are summed in float64 along one axis only, so that the full-size
    arrays can be float32.
    """
    terms = _row(inverse[axis], box)
    if affine.is_affine(inverse):
        return _sum_float32([terms[0] - origin, *terms[1:]])
    scale = functools.reduce(np.add, _row(inverse[-1], box))
    return (functools.reduce(np.add, terms) / scale - origin).astype(np.float32)


def _row(coefficients: Float[np.ndarray, " d1"], box: Box) -> list[Float64]:
    """The terms of one row of the map: the constant, then one per axis that matters."""
    terms = [np.full((1,) * box.ndim, coefficients[-1])]
    for axis, (start, stop) in enumerate(zip(box.start, box.stop, strict=True)):
        if coefficients[axis] != 0.0:
            shape = [1] * box.ndim
            shape[axis] = -1
            terms.append(coefficients[axis] * np.arange(start, stop).reshape(shape))
    return terms


def _sum_float32(terms: list[Float64]) -> Image:
    constant, *along = terms
    if not along:
        return constant.astype(np.float32)
    return functools.reduce(np.add, [(along[0] + constant).astype(np.float32), *(
        t.astype(np.float32) for t in along[1:]
    )])  # fmt: skip


def _resample(
    source: Num[np.ndarray, "..."],
    local: affine.Matrix,
    shape: tuple[int, ...],
    interpolation: str,
    *,
    outside: float | None = None,
) -> Num[np.ndarray, "..."]:
    """`source` at `local @ p` for each voxel p of the shape.

    Borders are repeated, or `outside` lies beyond them.
    """
    if len(shape) == 2:
        return _resample_plane(source, local, shape, interpolation, outside)
    if _keeps_planes(local):
        return _resample_planes(source, local, shape, interpolation, outside)
    order = _SPLINE_ORDER[interpolation]
    border = {"mode": "nearest"} if outside is None else {"mode": "constant", "cval": outside}
    if affine.is_affine(local):
        linear, shift = local[:-1, :-1], local[:-1, -1]
        return ndimage.affine_transform(source, linear, shift, shape, order=order, **border)
    points = (_coordinate(local, Box.of_shape(shape), axis, 0.0) for axis in range(len(shape)))
    stacked = np.stack(np.broadcast_arrays(*points))
    return ndimage.map_coordinates(source, stacked, order=order, **border)


def _resample_plane(
    source: Num[np.ndarray, "..."],
    local: affine.Matrix,
    shape: tuple[int, ...],
    interpolation: str,
    outside: float | None,
) -> Num[np.ndarray, "..."]:
    matrix = local[_XY][:, _XY]
    size = (shape[1], shape[0])
    flags = _CV2_FLAGS[interpolation] | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    value = outside or 0.0
    if affine.is_affine(local):
        return cv2.warpAffine(
            source, matrix[:2], size, flags=flags, borderMode=border, borderValue=value
        )
    return cv2.warpPerspective(
        source, matrix, size, flags=flags, borderMode=border, borderValue=value
    )


def _keeps_planes(local: affine.Matrix) -> bool:
    """Whether z and yx do not mix, as for stage positions and in-plane affines."""
    return affine.is_affine(local) and not local[0, 1:3].any() and not local[1:3, 0].any()


def _resample_planes(
    source: Image,
    local: affine.Matrix,
    shape: tuple[int, ...],
    interpolation: str,
    outside: float | None,
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
    return np.stack(
        [_resample_plane(p, in_plane, shape[1:], interpolation, outside) for p in planes]
    )


def _between_planes(source: Image, along_z: Float[np.ndarray, " n"], *, nearest: bool) -> Image:
    last = len(source) - 1
    if nearest:
        return source[np.clip(np.rint(along_z), 0, last).astype(int)]
    position = np.clip(along_z, 0, last)
    below = np.minimum(position.astype(int), max(last - 1, 0))
    above = np.minimum(below + 1, last)
    share = (position - below).astype(np.float32)[:, None, None]
    return source[below] * (1 - share) + source[above] * share
