"""Boundary evidence out of grey values: where a thin dark sheet, such as a membrane, may lie.

Two things speak for a sheet: the grey value is low, and it bends up across the sheet, however that
lies. The second is the largest eigenvalue of the Hessian of the smoothed image (Sato et al. 1998,
doi 10.1016/S1361-8415(98)80009-1). Both are weighed by how much they vary in the whole image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num
from scipy import ndimage

# Beyond so many sigmas a Gaussian counts as 0.
_TRUNCATE = 4.0
# Darkness beside bend, each in its own standard deviations.
_DARKNESS = 0.8

Image = Float32[np.ndarray, "*shape"]


class Traces(NamedTuple):
    """What may show a sheet.

    Attributes:
        bend: largest second derivative in any direction, in grey values per sigma squared.
        darkness: minus the smoothed grey value.
    """

    bend: Image
    darkness: Image


class Weights(NamedTuple):
    """Evidence is `bend * bend_weight + darkness * darkness_weight + offset`: its mean over the
    whole image is 0, its standard deviation 1."""

    bend: float
    darkness: float
    offset: float

    def evidence(self, found: Traces) -> Image:
        """That a voxel lies in a sheet, in standard deviations."""
        values = self.bend * found.bend + self.darkness * found.darkness + self.offset
        return values.astype(np.float32)


def halo(sigma: Sequence[float]) -> tuple[int, ...]:
    """How far the traces of a voxel reach."""
    return tuple(int(_TRUNCATE * s + 0.5) for s in sigma)


def traces(image: Num[np.ndarray, "*shape"], sigma: Sequence[float], *, dark: bool) -> Traces:
    """The traces of sheets in an image of two or three axes.

    Args:
        image: grey values; what is not finite counts as the mean.
        sigma: half the thickness of a sheet along each axis, voxels.
        dark: whether sheets are darker than what they part.
    """
    values = image.astype(np.float32)
    known = np.isfinite(values)
    if not known.all():
        values[~known] = values[known].mean() if known.any() else 0
    if not dark:
        values = -values
    rank = values.ndim
    hessian = {}
    for i in range(rank):
        for j in range(i, rank):
            order = [(k == i) + (k == j) for k in range(rank)]
            second = _gaussian(values, sigma, order)
            hessian[i, j] = sigma[i] * sigma[j] * second
    largest = _largest_of_two if rank == 2 else _largest_of_three
    return Traces(largest(hessian), -_gaussian(values, sigma, [0] * rank))


def weights(samples: Iterable[Traces]) -> Weights:
    """The weights for an image of which these are samples; 0 for a trace that never varies."""
    found = [(one.bend.ravel(), one.darkness.ravel()) for one in samples]
    bend, darkness = (
        np.concatenate(column).astype(np.float64) for column in zip(*found, strict=True)
    )
    by_bend, by_darkness = _per_deviation(bend), _DARKNESS * _per_deviation(darkness)
    together = by_bend * bend + by_darkness * darkness
    scale = _per_deviation(together)
    offset = -scale * float(together.mean())
    return Weights(scale * by_bend, scale * by_darkness, offset)


def _per_deviation(values: np.ndarray) -> float:
    deviation = float(values.std())
    return 1 / deviation if deviation > 0 else 0.0


def _gaussian(values: Image, sigma: Sequence[float], order: Sequence[int]) -> Image:
    found: np.ndarray = ndimage.gaussian_filter(
        values, sigma, order=order, truncate=_TRUNCATE, mode="nearest"
    )
    return found


def _largest_of_two(h: dict[tuple[int, int], Image]) -> Image:
    """The larger eigenvalue of a symmetric 2 x 2 matrix at each pixel."""
    half = (h[0, 0] - h[1, 1]) / 2
    return (h[0, 0] + h[1, 1]) / 2 + np.hypot(half, h[0, 1])


def _largest_of_three(h: dict[tuple[int, int], Image]) -> Image:
    """The largest eigenvalue of a symmetric 3 x 3 matrix at each voxel, by the cosine formula
    (Smith 1961, doi 10.1145/355578.366316)."""
    mean = (h[0, 0] + h[1, 1] + h[2, 2]) / 3
    a, b, c = (h[i, i] - mean for i in range(3))
    d, e, f = h[0, 1], h[0, 2], h[1, 2]
    size = np.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(size > 0, determinant / (2 * size**3), 1.0)
    angle = np.arccos(np.clip(cosine, -1, 1)) / 3
    return np.asarray(mean + 2 * size * np.cos(angle), np.float32)
