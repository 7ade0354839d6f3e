"""How alike two volumes are, and can be at all: their noise bounds the correlation.

`corr(f, m) <= sqrt(r_f r_m)`, with `r` the part of a volume's variance that is not noise (Spearman
1904, doi 10.2307/1412159). What differs along all axes at once from voxel to voxel is noise, as
structures are blurred (Donoho and Johnstone 1994, doi 10.1093/biomet/81.3.425).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.flow.pyramid import padded, smoothed
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.linear.pearson import pearson

Volume = Float32[np.ndarray, "..."]

_LEAST_VOXELS = 100
_MEDIAN_OF_NORMAL = 0.6745  # of the size of a normal variable of variance 1
_LEAST_KNOWN = 0.5  # of a window
_IMPULSE = 9
_BUCKET = 32  # volumes of nearly the same size share one compiled program


def noise_variance(volume: Volume) -> float:
    """Of white noise; NaN = no data. NaN where too little is known.

    From the median size of the differences of differences along every axis, which structures that
    are few or smooth do not change.
    """
    gaps = volume.astype(np.float64)
    for axis in range(volume.ndim):
        gaps = np.diff(gaps, axis=axis) / math.sqrt(2)
    known = np.abs(gaps[np.isfinite(gaps)])
    if known.size < _LEAST_VOXELS:
        return math.nan
    return float(np.median(known) / _MEDIAN_OF_NORMAL) ** 2


def reliability(volume: Volume, window: tuple[float, ...]) -> float:
    """The part of the variance that is not noise, in windows of a volume that is smoothed as for
    matching (`kernels.flow.pyramid`): their median; NaN where too little is known.

    Args:
        window: width of what is compared, voxels.
    """
    noise = noise_variance(volume)
    if math.isnan(noise):
        return math.nan
    ready, parts = _smooth(volume), []
    for box in _windows(volume.shape, window):
        values = ready[box.slices]
        known = values[np.isfinite(values)].astype(np.float64)
        if known.size >= _LEAST_KNOWN * values.size and known.var() > 0:
            parts.append(np.clip(1 - noise * _kept_noise(volume.ndim) / known.var(), 0, 1))
    return float(np.median(parts)) if parts else math.nan


def alike(fixed: Volume, moving: Volume, window: tuple[float, ...]) -> float:
    """The correlation of two volumes of one shape, smoothed as for matching: the median of
    windows; NaN where too little is known."""
    ready, parts = [_smooth(volume) for volume in (fixed, moving)], []
    for box in _windows(fixed.shape, window):
        first, second = (r[box.slices] for r in ready)
        if np.isfinite(first + second).mean() >= _LEAST_KNOWN:
            parts.append(pearson(first, second))
    known = [part for part in parts if not math.isnan(part)]
    return float(np.median(known)) if known else math.nan


def ceiling(fixed: Volume, moving: Volume, window: tuple[float, ...]) -> float:
    """The correlation that windows of two volumes can reach where they lie exactly on each other
    and show the same; NaN where too little is known."""
    return math.sqrt(reliability(fixed, window) * reliability(moving, window))


def _smooth(volume: Volume) -> Volume:
    ready = np.asarray(smoothed(padded(volume, None, _BUCKET), 0.0, 1.0, halo=0))
    return ready[tuple(map(slice, volume.shape))]


def _windows(shape: tuple[int, ...], window: tuple[float, ...]) -> list[Box]:
    side = tuple(min(max(round(w), 1), n) for w, n in zip(window, shape, strict=True))
    grid = BlockGrid(shape, side)
    return [grid.box(index) for index in grid.indices()]


@functools.cache
def _kept_noise(rank: int) -> float:
    """The variance that smoothing leaves of white noise of variance 1."""
    impulse = np.zeros((_IMPULSE,) * rank, np.float32)
    impulse[(_IMPULSE // 2,) * rank] = 1
    return float((np.asarray(smoothed(impulse, 0.0, 1.0, halo=0), np.float64) ** 2).sum())
