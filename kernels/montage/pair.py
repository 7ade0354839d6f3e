"""One link of a mosaic: how the strips of two tiles that should overlap lie to each other.

A coarse whole-pixel peak is searched for around the stage's offset, then refined to a
fraction of a pixel. Positions and points are tile voxels in array order (zyx or yx).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Num, Shaped

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.montage.blocks import refine_blocks
from warpbeam.kernels.montage.contrast import band_pass, limit
from warpbeam.kernels.montage.correlation import correlate
from warpbeam.kernels.montage.refine import SIGMAS_PX, refine

Offset = Sequence[int | float] | Num[np.ndarray, " d"]
Search = Sequence[int] | Int[np.ndarray, " d"]
Masked = tuple[Float32[np.ndarray, "..."], Bool[np.ndarray, "..."]]

# The band in which the coarse peak is looked for, as two Gaussian scales, and how many
# standard deviations of background a value may stand out.
_BAND_PX = (2.0, 6.0)
_LIMIT = 5.0
# Less deviation than this share of the brightest voxel is float32 rounding: a flat strip.
_FLAT = 1e-7
# An overlap of fewer independent samples cannot tell a match from chance.
_LEAST_GRAINS = 8
_LEAST_PX = 8
# Refinement that ends further from the whole-pixel peak found something else.
_MAX_CORRECTION_PX = 2.5


@dataclass(frozen=True, eq=False)
class Strip:
    """Part of a tile: its voxels, where in the tile they start, and which are valid.

    Voxels that are NaN or infinite are never valid.
    """

    voxels: Shaped[np.ndarray, "*strip"]
    origin: tuple[int, ...]
    mask: Bool[np.ndarray, "*strip"] | None = None

    def prepared(self) -> Masked:
        """The valid voxels at mean 0 and variance 1, 0 elsewhere and if all are equal; the mask."""
        values = self.voxels.astype(np.float64)
        mask = np.isfinite(values)
        if self.mask is not None:
            mask &= self.mask
        if not mask.any():
            return np.zeros(mask.shape, np.float32), mask
        values[~mask] = 0
        top = float(np.abs(values).max())
        values /= top if top > 0 else 1
        values -= values.sum() / mask.sum()
        values[~mask] = 0
        deviation = float(np.sqrt(np.vdot(values, values) / mask.sum()))
        flat = deviation < _FLAT
        return (values * (0 if flat else 1 / deviation)).astype(np.float32), mask


@dataclass(frozen=True)
class Peak:
    """The best whole-pixel shift: `fixed tile[p + shift]` lies on `moving tile[p]`.

    `score` is the ncc in standard deviations of the ncc of unrelated strips: it compares
    between strips of different size and texture. `reason` says why there is no peak.
    """

    shift: tuple[int, ...]
    ncc: float
    score: float
    overlap: int
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Link:
    """What was measured between two tiles; no points where `reason` says why.

    `fixed_points[i]` and `moving_points[i]` are the same place in either tile (voxels,
    fractional), and `information[i]` is the inverse covariance of their difference (px^-2,
    singular where the content leaves a direction open). `score` is the coarse peak's, to be
    judged against that of strips which do not match; `ncc` that of the refined match in -1..1
    (NaN without one); `overlap` counts the valid voxel pairs.
    """

    fixed_points: Float[np.ndarray, "k d"]
    moving_points: Float[np.ndarray, "k d"]
    information: Float[np.ndarray, "k d d"]
    score: float
    ncc: float
    overlap: int
    reason: str = ""


def strip_boxes(
    fixed_shape: Sequence[int],
    moving_shape: Sequence[int],
    *,
    offset: Offset,
    search: Search,
) -> tuple[Box, Box]:
    """The parts of two tiles that may overlap: the nominal overlap padded by `search` px.

    `offset` is the moving tile's origin in voxels of the fixed one. Either box is empty where
    nothing can overlap.
    """
    whole = [round(o) for o in offset]
    fixed, moving = Box.of_shape(fixed_shape), Box.of_shape(moving_shape)
    back = [-o for o in whole]
    halo = [int(s) for s in search]
    return fixed & moving.shift(whole).pad(halo), moving & fixed.shift(back).pad(halo)


def coarse_peak(fixed: Strip, moving: Strip, *, offset: Offset, search: Search) -> Peak:
    """Finds the whole-pixel shift within `search` px of `offset` on each axis.

    Raises:
        ValueError: ranks differ.
    """
    _check_ranks(fixed, moving, offset, search)
    return _coarse(_Patches.of(fixed, moving), offset, search)


def measure_link(
    fixed: Strip,
    moving: Strip,
    *,
    offset: Offset,
    search: Search,
    blocks: int,
) -> Link:
    """Measures how `moving` lies to `fixed`; bad strips give a link without points.

    Args:
        fixed, moving: the parts of the two tiles, see `strip_boxes`.
        offset: the stage's opinion: the moving tile's origin in voxels of the fixed tile.
        search: how far from that the match may be, px on each axis.
        blocks: 1 for one point pair per link; more cut the overlap along its longest axis and
            measure each block, which tells rotation and scale.

    Raises:
        ValueError: ranks differ, or `blocks` is not positive.
    """
    if blocks < 1:
        raise ValueError(f"a link needs at least one block, got {blocks}")
    _check_ranks(fixed, moving, offset, search)
    patches = _Patches.of(fixed, moving)
    peak = _coarse(patches, offset, search)
    if peak.reason:
        return _no_link(peak, peak.reason)
    start = np.add(peak.shift, patches.between).astype(np.float64)
    a, b = patches.fixed, patches.moving
    whole = refine(a[0], b[0], a[1], b[1], start=start, sigmas=SIGMAS_PX, coarse_first=blocks > 1)
    if whole is None or np.abs(whole.shift - start).max() > _MAX_CORRECTION_PX:
        return _no_link(peak, "no stable sub-pixel match near the peak")
    found = refine_blocks(a, b, whole, count=blocks) if blocks > 1 else []
    found = found or [whole]
    points = np.stack([r.centre for r in found]) + fixed.origin
    shifts = np.stack([r.shift for r in found]) - patches.between
    return Link(
        points,
        points - shifts,
        np.stack([r.information for r in found]),
        peak.score,
        whole.ncc,
        peak.overlap,
    )


@dataclass(frozen=True, eq=False)
class _Patches:
    """Two strips as the kernels want them; `between` leads from tile to strip shifts."""

    fixed: Masked
    moving: Masked
    between: tuple[int, ...]

    @classmethod
    def of(cls, fixed: Strip, moving: Strip) -> _Patches:
        between = tuple(m - f for m, f in zip(moving.origin, fixed.origin, strict=True))
        return cls(fixed.prepared(), moving.prepared(), between)


def _check_ranks(fixed: Strip, moving: Strip, offset: Offset, search: Search) -> None:
    ndim = fixed.voxels.ndim
    if not ndim == moving.voxels.ndim == len(offset) == len(search):
        raise ValueError(
            f"ranks differ: strips {fixed.voxels.shape} and {moving.voxels.shape}, "
            f"offset {tuple(offset)}, search {tuple(search)}"
        )


def _coarse(patches: _Patches, offset: Offset, search: Search) -> Peak:
    nowhere = Peak(tuple(round(o) for o in offset), 0.0, 0.0, 0)
    shapes = patches.fixed[0].shape + patches.moving[0].shape
    if min(shapes) < _LEAST_PX:
        return replace(nowhere, reason=f"a strip is thinner than {_LEAST_PX} px")
    if not (patches.fixed[1].any() and patches.moving[1].any()):
        return replace(nowhere, reason="a strip has no valid voxel")
    fixed, moving = (
        limit(band_pass(values, mask, *_BAND_PX), mask, _LIMIT)
        for values, mask in (patches.fixed, patches.moving)
    )
    first = [o + b - s for o, b, s in zip(nowhere.shift, patches.between, search, strict=True)]
    found = correlate(
        fixed,
        moving,
        patches.fixed[1],
        patches.moving[1],
        window=(first, [f + 2 * s + 1 for f, s in zip(first, search, strict=True)]),
        min_overlap=_LEAST_PX**fixed.ndim,
    )
    if not found.ncc.any():
        return replace(nowhere, reason="a strip has no contrast or the strips do not overlap")
    enough = found.overlap >= _LEAST_GRAINS * found.grain
    score = np.where(enough, found.significance(), np.float32(0))
    best = np.unravel_index(int(score.argmax()), score.shape)
    if score[best] <= 0:
        return replace(nowhere, reason="no shift in the search window matches")
    shift = tuple(int(i) + f - b for i, f, b in zip(best, first, patches.between, strict=True))
    return Peak(shift, float(found.ncc[best]), float(score[best]), int(found.overlap[best]))


def _no_link(peak: Peak, reason: str) -> Link:
    ndim = len(peak.shift)
    none = np.empty((0, ndim))
    return Link(none, none, np.empty((0, ndim, ndim)), peak.score, np.nan, peak.overlap, reason)
