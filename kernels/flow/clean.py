"""Which vectors of a flow to trust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.flow.field import Flow
from warpbeam.kernels.flow.neighbours import nan_median, neighbour_stack, outliers


@dataclass(frozen=True)
class CleanSettings:
    """What a vector must satisfy; None leaves a test out.

    Refined flows have already been tested for agreement with their neighbours, so that a low
    ratio will do. Rigid ones (`steps=0`) have not: the field's habit is 1.6 for ratio and
    sharpness.

    Args:
        min_peak_ratio: of the best peak over the second one.
        min_sharpness: of the peak over the least value around it.
        min_ncc: correlation at the vector.
        max_magnitude: largest component, voxels, after the median of all vectors is taken off.
        max_deviation: largest component of the distance from the median of the 3^d valid
            neighbours, voxels.
        max_outlier: the same in units of the neighbours' own scatter (normalised median test).
    """

    min_peak_ratio: float | None = 1.3
    min_sharpness: float | None = None
    min_ncc: float | None = None
    max_magnitude: float | None = None
    max_deviation: float | None = None
    max_outlier: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0 or None, got {value}")


def trusted(flow: Flow, settings: CleanSettings) -> Bool[np.ndarray, "*nodes"]:
    """The nodes of a flow without leading axes whose vectors pass every test.

    NaN vectors never pass, and count nowhere: medians are those of what is known.

    Raises:
        ValueError: the flow has leading axes.
    """
    rank = len(flow.lattice.shape)
    if flow.vectors.ndim != rank + 1:
        raise ValueError(f"one flow at a time: vectors {flow.vectors.shape} for {rank}-D nodes")
    good: Bool[np.ndarray, "*nodes"] = np.isfinite(flow.vectors).all(axis=0)
    for values, least in (
        (flow.peak_ratio, settings.min_peak_ratio),
        (flow.sharpness, settings.min_sharpness),
        (flow.ncc, settings.min_ncc),
    ):
        if least is not None:
            good = good & (values >= least)
    vectors = np.where(good, flow.vectors, np.nan).astype(np.float64)
    if settings.max_magnitude is not None:
        good = good & within_magnitude(vectors, settings.max_magnitude)
        vectors[:, ~good] = np.nan
    if settings.max_deviation is not None:
        good = good & within_deviation(vectors, settings.max_deviation)
    if settings.max_outlier is not None:
        good = good & ~outliers(vectors, threshold=settings.max_outlier)
    return good


def within_magnitude(
    vectors: Float[np.ndarray, "d *nodes"], limit: float
) -> Bool[np.ndarray, "*nodes"]:
    """Nodes no component of which differs from the median of all nodes by more than `limit`."""
    middle = nan_median(vectors.reshape(len(vectors), -1).T)
    apart = np.abs(vectors - middle.reshape(-1, *(1,) * (vectors.ndim - 1)))
    return _at_most(apart, limit)


def within_deviation(
    vectors: Float[np.ndarray, "d *nodes"], limit: float
) -> Bool[np.ndarray, "*nodes"]:
    """Nodes no component of which is further than `limit` from the median of what is known in
    the 3^d nodes around it, itself included."""
    return _at_most(np.abs(vectors - nan_median(neighbour_stack(vectors, 1, centre=True))), limit)


def _at_most(apart: Float[np.ndarray, "d *nodes"], limit: float) -> Bool[np.ndarray, "*nodes"]:
    worst: Float[np.ndarray, "*nodes"] = np.max(apart, axis=0)
    return np.asarray(worst <= limit)
