"""Bright and dark blobs of a volume: where a band-pass of it peaks (Lindeberg 1998, doi
10.1023/A:1008045108935). They stay where they are however the volume is turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from warpbeam.kernels.montage.contrast import band_pass

_BAND = (1.0, 1.6)  # Gaussian scales, voxels
_ROUNDING = 1e-5  # of the largest grey value: less is none of the volume's
_RIM = 2  # voxels beside what is not known, where the band-pass sees too little


@dataclass(frozen=True)
class Blobs:
    """Small things that stand out.

    Attributes:
        points: zyx, voxels, to a fraction of one.
        bright: against what is around; else dark.
    """

    points: Float[np.ndarray, "n d"]
    bright: Bool[np.ndarray, " n"]


def blobs(volume: Float32[np.ndarray, "*shape"], most: int) -> Blobs:
    """The blobs that stand out most, at most so many; NaN = no data."""
    known = np.isfinite(volume)
    filled = np.where(known, volume, np.float32(0))
    detail = band_pass(filled, known, *_BAND)
    least = _ROUNDING * np.abs(filled).max()
    deep = ndimage.binary_erosion(known, iterations=_RIM)
    points, heights = [], []
    for sign in (1, -1):
        signed = sign * detail
        peak = deep & (signed > least) & (signed == ndimage.maximum_filter(signed, size=3))
        points.append(np.argwhere(peak) + _between(signed, np.argwhere(peak)))
        heights.append(signed[peak])
    bright = np.repeat([True, False], [len(part) for part in points])
    strongest = np.argsort(-np.concatenate(heights), kind="stable")[:most]
    return Blobs(np.concatenate(points)[strongest], bright[strongest])


def _between(
    detail: Float32[np.ndarray, "*shape"], at: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> Float[np.ndarray, "n d"]:
    """How far from its voxel each peak is: that of a parabola through three, along each axis."""
    offsets = np.zeros(at.shape)
    for axis, step in enumerate(np.eye(detail.ndim, dtype=int)):
        before, here, after = (detail[tuple((at + k * step).T)] for k in (-1, 0, 1))
        bend = np.minimum(before - 2 * here + after, -1e-12)
        offsets[:, axis] = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    return offsets
