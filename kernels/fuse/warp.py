"""One tile drawn on a box of output voxels.

A voxel is an area: a tile of n voxels covers [-1/2, n - 1/2], and what lies in its outer
half voxel takes the value of the border. Linear interpolation in 2-D is
`cv2.warpAffine`, which since OpenCV 5 evaluates coordinates in float32 (measured: 1e-5 px
from exact; older versions rounded to 1/32 px). Cubic interpolation is scipy's spline: the
kernel of `cv2.INTER_CUBIC` (Keys 1981, doi 10.1109/TASSP.1981.1163711, with a = -3/4 where
the paper derives -1/2) moves what it draws by up to 0.05 px.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import ndimage

from warpbeam.kernels.fuse.bend import Bend
from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.warp.sample import sample

Image = Float[np.ndarray, "..."]
Float64 = Float[np.ndarray, "..."]

# cv2 counts x before y.
_XY = np.array([1, 0, 2])
_CV2_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "lanczos": cv2.INTER_LANCZOS4,
}
_SPLINE_ORDER = {"nearest": 0, "linear": 1, "cubic": 3}
INTERPOLATIONS = ("nearest", "linear", "cubic", "lanczos")
# Voxels beyond the mapped box that a kernel reaches; cubic splines ring for ten.
_REACH = {"nearest": 1, "linear": 2, "cubic": 12, "lanczos": 5}

# What is left of a weight outside the tile.
OUTSIDE = np.float32(1e-9)


@dataclass(frozen=True)
class Warped:
    """A tile on a box of output voxels.

    Attributes:
        box: the output voxels drawn on.
        values: the shape of the box; meaningless where not `valid`.
        shape: shape of the whole tile.
        inverse: homogeneous map from output voxels to voxels of the tile.
        window: the voxels of the tile that were looked at.
        upright: see `TileView.upright`.
        unmasked: which voxels the tile's mask allows; None means all.
        position: of a bent tile: where in `window` each voxel comes from, `[component, *box]`.
    """

    box: Box
    values: Num[np.ndarray, "..."]
    shape: tuple[int, ...]
    inverse: affine.Matrix
    window: Box
    upright: Box | None
    unmasked: Bool[np.ndarray, "..."] | None
    position: Image | None = None

    def spread(self, profiles: Sequence[Callable[[int], Image]]) -> Image:
        """A separable image over the tile, drawn on the box.

        On a tile that is not turned it is separable on the output too, which spares a warp.

        Args:
            profiles: per axis, gives the values along n voxels of it, positive, and least at
                both ends.

        Returns:
            The product of the profiles; next to 0 outside the tile, unless it is bent.
        """
        if self.upright is not None:
            spans = zip(self.box.start, self.box.stop, self.upright.start, self.upright.shape,
                        strict=True)  # fmt: skip
            along = [
                _with_ends(profile(n), a - o, b - o)
                for profile, (a, b, o, n) in zip(profiles, spans, strict=True)
            ]
            return functools.reduce(np.multiply.outer, along)
        ends = zip(self.shape, self.window.start, self.window.stop, strict=True)
        along = [profile(n)[a:b] for profile, (n, a, b) in zip(profiles, ends, strict=True)]
        product = functools.reduce(np.multiply.outer, along)
        if self.position is not None:
            return _sampled(product, self.position, "linear")
        local = affine.recentre(self.inverse, self.window.start, self.box.start)
        return _resample(product, local, self.box.shape, "linear", outside=0.0)

    def from_centre(self, axis: int) -> Image:
        """The distance along an axis, in source voxels and with its sign, from the tile's centre.

        Broadcastable to the box: an axis that does not matter has length 1.
        """
        middle = (self.shape[axis] - 1) / 2
        if self.position is not None:
            return self.position[axis] - np.float32(middle - self.window.start[axis])
        return _coordinate(self.inverse, self.box, axis, middle)

    @functools.cached_property
    def valid(self) -> Bool[np.ndarray, "..."] | None:
        """Which voxels the tile really covers; None means all, the usual case inside a tile."""
        if self.upright is not None and self.upright.contains(self.box):
            return self.unmasked
        inside = self.unmasked
        spans = zip(*self._span(), self.shape, strict=True)
        for axis, (low, high, n) in enumerate(spans):
            if low >= -0.5 - 1e-6 and high <= n - 0.5 + 2e-6:
                continue
            on_axis = np.abs(self.from_centre(axis)) <= np.float32(n / 2 + 1e-6)
            inside = on_axis if inside is None else inside & on_axis
        return None if inside is None else np.broadcast_to(inside, self.box.shape)

    def _span(self) -> tuple[list[float], list[float]]:
        """The lowest and the highest voxels of the tile that the box shows."""
        if self.position is None:
            return affine.span(self.inverse, self.box)
        flat = self.position.reshape(len(self.position), -1)
        first = np.array(self.window.start, np.float64)
        return (flat.min(axis=1) + first).tolist(), (flat.max(axis=1) + first).tolist()


def _with_ends(profile: Image, start: int, stop: int) -> Image:
    """A part of a profile that may reach beyond it, where it is next to nothing."""
    if start >= 0 and stop <= len(profile):
        return profile[start:stop]
    values = np.full(stop - start, profile.min() * OUTSIDE, np.float32)
    first, last = max(start, 0), min(stop, len(profile))
    if first < last:
        values[first - start : last - start] = profile[first:last]
    return values


def reach(interpolation: str) -> int:
    """How far, in source voxels, an interpolation looks beyond the mapped box."""
    return _REACH[interpolation]


def warp_into(view: TileView, target: Box, interpolation: str, out: Num[np.ndarray, "..."]) -> bool:
    """Draws a tile that covers all of `target` where it shall be stored: no copy, no new memory.

    Args:
        view, target, interpolation: as of `warp`, which gives the same values to the bit.
        out: of the shape of `target`; its rows may lie apart.

    Returns:
        Whether it was drawn: a plane, of the dtype of `out`, of a tile that needs no correction.
    """
    whole = view.mask is None and view.upright is not None and view.upright.contains(target)
    if not (whole and _is_exact(view, target, interpolation)):
        return False
    near = source_box(view.inverse, view.shape, target, reach(interpolation))
    source, window = view.crop(near, exact=True)
    if source.dtype != out.dtype:
        return False
    local = affine.recentre(view.inverse, window.start, target.start)
    _resample_plane(source, local, target.shape, interpolation, None, out)
    return True


def _is_exact(view: TileView, target: Box, interpolation: str) -> bool:
    """OpenCV rounds to half to even and clips as it writes; the other ways do not."""
    return target.ndim == 2 and interpolation in _CV2_FLAGS and view.bend is None


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
    if interpolation not in INTERPOLATIONS or (ndim == 3 and interpolation == "lanczos"):
        raise ValueError(f"no {interpolation!r} interpolation in {ndim}-D")
    box = view.footprint & target
    if not box:
        return None
    near = source_box(view.inverse, view.shape, box, reach(interpolation) + view.reach)
    exact = exact and _is_exact(view, target, interpolation)
    source, window = view.crop(near, exact=exact)
    if not window:
        return None
    if view.bend is not None:
        return _warp_bent(view, view.bend, box, source, window, interpolation)
    local = affine.recentre(view.inverse, window.start, box.start)
    values = _resample(source, local, box.shape, interpolation)
    unmasked = None
    if view.mask is not None:
        unmasked = _resample(view.crop_mask(window), local, box.shape, "linear") > 0.999
    return Warped(box, values, view.shape, view.inverse, window, view.upright, unmasked)


def _warp_bent(
    view: TileView, bend: Bend, box: Box, source: Image, window: Box, interpolation: str
) -> Warped:
    """Draws the window of a bent tile on a box."""
    to_nodes = bend.to_nodes @ view.inverse
    local = affine.recentre(to_nodes, (0,) * box.ndim, box.start)
    position = np.stack([
        _coordinate(view.inverse, box, axis, float(first)) + _resample(
            nodes, local, box.shape, "linear"
        )
        for axis, (nodes, first) in enumerate(zip(bend.nodes, window.start, strict=True))
    ])  # fmt: skip
    values = _sampled(source, position, interpolation)
    unmasked = None
    if view.mask is not None:
        unmasked = _sampled(view.crop_mask(window), position, "linear") > 0.999
    return Warped(box, values, view.shape, view.inverse, window, None, unmasked, position)


def _sampled(source: Image, position: Image, interpolation: str) -> Image:
    """`source` at positions `[component, *box]`; borders are repeated."""
    if interpolation != "nearest":
        return sample(source, position, interpolation, np.dtype(np.float32))
    index = (np.clip(np.rint(p), 0, n - 1).astype(np.int64)
             for p, n in zip(position, source.shape, strict=True))  # fmt: skip
    return source[tuple(index)]


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
    if interpolation != "cubic" and len(shape) == 2:
        return _resample_plane(source, local, shape, interpolation, outside)
    if interpolation != "cubic" and _keeps_planes(local):
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
    out: Num[np.ndarray, "..."] | None = None,
) -> Num[np.ndarray, "..."]:
    matrix = local[_XY][:, _XY]
    size = (shape[1], shape[0])
    flags = _CV2_FLAGS[interpolation] | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    value = outside or 0.0
    if affine.is_affine(local):
        return cv2.warpAffine(
            source, matrix[:2], size, out, flags=flags, borderMode=border, borderValue=value
        )
    return cv2.warpPerspective(
        source, matrix, size, out, flags=flags, borderMode=border, borderValue=value
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
