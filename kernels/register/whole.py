"""How one whole volume lies on another one: a start where the two hardly overlap.

Every shift (and, if wanted, every turn about the three axes) is tried at once on small copies,
by masked correlation of what a band-pass leaves: the start needs no overlap of cells or any
resemblance at shift zero. From there patches are matched and a linear map is fitted to them
robustly, warped, matched again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from warpbeam.kernels.flow.match import MatchSettings, match
from warpbeam.kernels.flow.pyramid import padded
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.linear.pearson import pearson
from warpbeam.kernels.montage.contrast import comparable
from warpbeam.kernels.montage.correlation import correlate
from warpbeam.kernels.register.linear_fit import LinearFit, LinearModel, fit_linear

StagedModel = Literal["translation", "rigid", "similarity", "affine", "trsaa"]
Volume = Float32[np.ndarray, "_ _ _"]
Mask = Bool[np.ndarray, "_ _ _"]

_BAND = (0.7, 6.0)  # Gaussian scales of the band-pass, voxels
_LIMIT = 3.0
_LEAST_OVERLAP = 0.15  # of the smaller volume
_ROUNDS = 4
_TRSAA: tuple[LinearModel, ...] = ("translation", "rigid", "similarity", "affine", "affine")
_DARK = 0.05  # of the voxels are background to moments
_PATCH = 14
_SEARCH = 5
_SIGNIFICANCE = 3.5
_MOST_PATCHES = 600
_BUCKET = 32  # images of nearly the same size share one compiled program
_LEAST_PAIRS = 8


@dataclass(frozen=True)
class WholeMatch:
    """How two whole volumes lie on one another.

    Attributes:
        matrix: `(4, 4)`, voxels of the fixed volume to those of the moving one.
        score: in standard deviations of what unrelated volumes reach at one shift.
    """

    matrix: affine.Matrix
    score: float


def scan(
    fixed: Volume,
    moving: Volume,
    start: affine.Matrix,
    size: Sequence[float],
    *,
    most_degrees: float = 0.0,
    step_degrees: float = 6.0,
) -> WholeMatch:
    """The shift, and the turn within `most_degrees` about each axis, that correlates best.

    Args:
        fixed, moving: small copies; NaN = no data; shapes may differ.
        start: fixed to moving, as far as it is known; turns are about the middle of `fixed`.
        size: edges of a fixed voxel, zyx, in any unit; what turns is the thing, not the grid.
        most_degrees: 0 leaves turns out.
    """
    still = comparable(fixed, _BAND, _LIMIT)
    best = WholeMatch(start, -np.inf)
    for turn in _turns(fixed.shape, size, most_degrees, step_degrees):
        matrix = start @ turn
        laid, shift = _laid(moving, matrix)
        found = _shifted(still, comparable(laid, _BAND, _LIMIT))
        if found is not None and found[1] > best.score:
            # fixed[p + t] lies on laid[p], and laid[p] is moving[matrix (p + shift)]
            back = affine.translation([-float(t) for t in found[0]])
            best = WholeMatch(matrix @ affine.translation(shift) @ back, found[1])
    return best


def moments(fixed: Volume, moving: Volume, start: affine.Matrix) -> affine.Matrix:
    """`start`, shifted so that the centres of mass of both volumes meet.

    For volumes that each show all of a thing; what is no brighter than the darkest voxels weighs
    nothing. Arguments as of `scan`.

    Raises:
        ValueError: a volume shows nothing.
    """
    here, there = _centre(fixed), _centre(moving)
    shift = there - affine.apply(start, here[None])[0]
    return affine.translation(shift.tolist()) @ start


def _centre(volume: Volume) -> Float[np.ndarray, " d"]:
    known = np.isfinite(volume)
    weight = np.zeros(volume.shape)
    if known.any():
        weight[known] = np.maximum(volume[known] - np.quantile(volume[known], _DARK), 0)
    if not weight.any():
        raise ValueError("the volume shows nothing")
    return np.array(ndimage.center_of_mass(weight))


def refine(
    fixed: Volume,
    moving: Volume,
    start: affine.Matrix,
    size: Sequence[float],
    model: StagedModel,
) -> tuple[affine.Matrix, LinearFit | None]:
    """A linear map from patches, matched and fitted a few times.

    Args:
        size: edges of a fixed voxel, zyx, in any unit, without which nothing is rigid.
        model: the same every time; "trsaa" frees more of it each time, for starts that are far
            off: translation, rigid, similarity, affine, and affine once more.

    Returns:
        The map, and the last fit, in shortest edges of a voxel of `fixed`; None where too few
        patches were found, and then the map is `start`.
    """
    matrix, fit = start, None
    unit = np.diag([*np.divide(size, min(size)), 1.0])
    base, back = unit @ np.linalg.inv(start), start @ np.linalg.inv(unit)
    for kind in _TRSAA if model == "trsaa" else (model,) * _ROUNDS:
        pairs = _pairs(fixed, _drawn(moving, matrix, fixed.shape))
        if len(pairs[0]) < _LEAST_PAIRS:
            break
        # all of the linear part is fitted anew, so that no model is left by composing
        here, there = affine.apply(unit, pairs[0]), affine.apply(base @ matrix, pairs[1])
        fit = fit_linear(here, there, kind, weights=pairs[2])
        matrix = back @ fit.matrix @ unit
    return matrix, fit


def likeness(fixed: Volume, moving: Volume, matrix: affine.Matrix) -> float:
    """Correlation of the grey values over all voxels that both show; NaN where there is none."""
    return pearson(fixed, _drawn(moving, matrix, fixed.shape))


def _turns(
    shape: tuple[int, ...], size: Sequence[float], most: float, step: float
) -> Iterator[affine.Matrix]:
    angles = [0.0]
    if most > 0:
        count = max(round(most / step), 1)
        angles = (np.arange(-count, count + 1) * (most / count)).tolist()
    middle = (np.array(shape) - 1) / 2
    for degrees in itertools.product(angles, repeat=3):
        linear = np.eye(3)
        for axis, angle in enumerate(np.deg2rad(degrees)):
            cross = np.cross(np.eye(3), np.eye(3)[axis])
            linear = linear @ (
                np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
            )
        linear = linear * size / np.reshape(size, (3, 1))
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = linear, middle - linear @ middle
        yield matrix


def _laid(moving: Volume, matrix: affine.Matrix) -> tuple[Volume, list[float]]:
    """The whole moving volume on the voxels of the fixed one, and where its first voxel lies."""
    ends = affine.corners(Box.of_shape(moving.shape))
    reached = affine.apply(np.linalg.inv(matrix), ends)
    first = np.floor(reached.min(axis=0)).astype(int)
    shape = tuple((np.ceil(reached.max(axis=0)).astype(int) - first + 1).tolist())
    shift = [float(f) for f in first]
    return _drawn(moving, matrix @ affine.translation(shift), shape), shift


def _drawn(moving: Volume, matrix: affine.Matrix, shape: tuple[int, ...]) -> Volume:
    """Linear interpolation at `matrix p`; NaN outside and next to NaN."""
    out = ndimage.affine_transform(
        moving, matrix[:3, :3], matrix[:3, 3], shape, order=1, cval=np.nan, prefilter=False
    )
    return out.astype(np.float32)


def _shifted(
    fixed: tuple[Volume, Mask], moving: tuple[Volume, Mask]
) -> tuple[tuple[int, ...], float] | None:
    """Shift and significance of the best correlation; None where nothing overlaps."""
    least = max(64, int(_LEAST_OVERLAP * min(fixed[1].sum(), moving[1].sum())))
    low = [-round(0.9 * n) for n in moving[0].shape]
    high = [round(0.9 * n) + 1 for n in fixed[0].shape]
    found = correlate(
        fixed[0], moving[0], fixed[1], moving[1], window=(low, high), min_overlap=least
    )
    significance = found.significance()
    index = np.unravel_index(int(np.argmax(significance)), significance.shape)
    score = float(significance[index])
    if score <= 0:
        return None
    return tuple(int(i) + a for i, a in zip(index, found.first, strict=True)), score


def _pairs(
    fixed: Volume, drawn: Volume
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Centres of patches, where they lie in the drawn volume, and weights."""
    patch = tuple(min(_PATCH, max(n // 2, 3)) for n in fixed.shape)
    search = tuple(min(_SEARCH, max(n // 4, 1)) for n in fixed.shape)
    stride = max(_PATCH // 2, int((fixed.size / _MOST_PATCHES) ** (1 / 3)))
    axes = [
        np.arange(0, max(n - p, 0) + 1, stride) for n, p in zip(fixed.shape, patch, strict=True)
    ]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    found = match(
        padded(fixed, None, _BUCKET), padded(drawn, None, _BUCKET),
        MatchSettings(patch, search, min_overlap=0.5),
        corners=corners, starts=np.zeros_like(corners),
    )  # fmt: skip
    good = np.isfinite(found.shift).all(axis=1) & (found.significance >= _SIGNIFICANCE)
    centres = corners[good] + (np.array(patch) - 1) / 2
    return centres, centres + found.shift[good], found.ncc[good].astype(np.float64) ** 2
