"""The steady drift of whole sections, which a chain of sections adds up: see `trend`.

Steps from section to section are those of the tissue, which change slowly, and those of the
microscope, which do not know of one another. So the tissue's are a mean over neighbouring steps:
the mean of all, and what the steps around a section differ from it, as far as that is more than
chance (shrinkage: Morris 1983, doi 10.1080/01621459.1983.10477920). Means are those of Huber
(1964, doi 10.1214/aoms/1177703732), on which jumps of the stage have no more weight than large
steps.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.mesh.trend import Numbers, Series, tricube

_DEVIATION = 1.48  # standard deviation over median deviation
_HUBER = 1.345  # deviations beyond which a step counts less: 95 % as efficient as a mean
_JUMP = 3.0  # deviations that a step is taken for at most, where scatter is measured
_ROUNDS = 30
_REACH = 60  # sections on either side whose steps are averaged
# A mean that is less certain (px per section) is no better than none.
_MOST_ERROR_PX = 0.1
# Below this share of the steps' variance chance alone would make their sum look certain.
_LEAST_SHARE = 0.05

Column = Float[np.ndarray, " c"]


def steady_drift(sections: Numbers, shift: Series) -> Series:
    """The steady drift of whole sections, about the middle of the stack; level where the
    sections are too few, or jump too much, to tell.

    Args:
        sections: their numbers, ascending; some may be missing.
        shift: mean displacement of each, px.
    """
    at = np.asarray(sections, float)
    if len(at) < 3:
        return np.zeros_like(shift)
    gaps = np.diff(at)
    steps = np.diff(shift, axis=0) / gaps[:, None]
    course = _course(at[:-1] + gaps / 2, steps) * gaps[:, None]
    drift = np.concatenate([np.zeros((1, shift.shape[1])), np.cumsum(course, axis=0)])
    return drift + np.median(shift - drift, axis=0)


def _course(at: Float[np.ndarray, " z"], steps: Series) -> Series:
    """The part of each step that its neighbours share, px per section."""
    spread = _DEVIATION * np.median(np.abs(steps - np.median(steps, axis=0)), axis=0)
    middle = _middle(steps, spread)
    apart = steps - middle
    power = _power(apart, spread)
    at_most = power + 2 * spread**2 / np.sqrt(len(steps))  # as the covariance is itself a guess
    certain = at_most / len(steps) <= _MOST_ERROR_PX**2
    around, chance = _around(at, apart, _weight(apart, spread))
    varies = (around**2).mean(axis=0)
    more = np.clip(1 - chance * power / np.maximum(varies, 1e-12), 0, None)
    return np.where(certain, middle + more * around, 0.0)


def _weight(apart: Series, spread: Column) -> Series:
    least = 1e-12  # px, where all steps are the same
    return np.minimum(1, np.maximum(_HUBER * spread, least) / np.maximum(np.abs(apart), least))


def _middle(steps: Series, spread: Column) -> Column:
    middle = np.median(steps, axis=0)
    for _ in range(_ROUNDS):
        weight = _weight(steps - middle, spread)
        middle = (weight * steps).sum(axis=0) / weight.sum(axis=0)
    return middle


def _power(apart: Series, spread: Column) -> Column:
    """Variance of a sum of steps, a step: that of one and twice its covariance with the next.

    A section that lies off makes two steps which cancel.
    """
    cut = np.clip(apart, -_JUMP * spread, _JUMP * spread)
    one, next_one = (cut**2).mean(axis=0), (cut[1:] * cut[:-1]).mean(axis=0)
    return np.maximum(one + 2 * next_one, _LEAST_SHARE * one)


def _around(at: Float[np.ndarray, " z"], apart: Series, weight: Series) -> tuple[Series, float]:
    """Means over the steps within reach, with tricube weights, and the mean share of a step's
    power that is in their variance."""
    out, share = np.empty_like(apart), 0.0
    for row, z in enumerate(at):
        near = slice(*np.searchsorted(at, (z - _REACH, z + _REACH + 1)))
        close = tricube((at[near] - z) / (_REACH + 1))
        each = close[:, None] * weight[near]
        out[row] = (each * apart[near]).sum(axis=0) / each.sum(axis=0)
        share += float((close**2).sum() / close.sum() ** 2)
    return out, share / len(at)
