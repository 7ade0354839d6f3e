"""The linear map that most pairs of points agree on: translation, rigid, similarity or affine.

Weighted least squares (Umeyama 1991, doi 10.1109/34.88573, for turns and scale), reweighted with
Geman and McClure's weights so that wrong pairs count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.linear.geman_mcclure import axis_scale, geman_mcclure

LinearModel = Literal["translation", "rigid", "similarity", "affine"]
Points = Float[np.ndarray, "n d"]
Weights = Float[np.ndarray, " n"]

_ROUNDS = 30
_SHRINK = 1.3
_RIDGE = 1e-9


@dataclass(frozen=True)
class LinearFit:
    """The linear map that most pairs of points agree on.

    Attributes:
        matrix: `(d + 1, d + 1)`, takes `points` to `targets`.
        kept: the share of its weight that was left of each pair.
        scale: standard deviation of the good pairs on one axis, in units of the points.
    """

    matrix: affine.Matrix
    kept: Weights
    scale: float


def fit_linear(
    points: Points,
    targets: Points,
    model: LinearModel,
    *,
    weights: Weights | None = None,
    least_scale: float = 0.05,
) -> LinearFit:
    """The robust fit.

    Args:
        points, targets: one pair per row, finite.
        model: what the map may be; too few pairs make a simpler one.
        weights: of the pairs, at least 0.
        least_scale: no pair is believed to be better than this.

    Raises:
        ValueError: no pair, or shapes differ.
    """
    if points.shape != targets.shape or not len(points):
        raise ValueError(f"needs pairs of points, got {points.shape} and {targets.shape}")
    share = np.ones(len(points)) if weights is None else weights
    axes = points.shape[1]
    matrix = _start(points, targets)
    squared = _squared(matrix, points, targets)
    scale = 2 * axis_scale(squared, axes, least_scale)
    kept, noise = geman_mcclure(squared, scale), scale
    for _ in range(_ROUNDS):
        matrix = _fitted(points, targets, share * kept, model)
        squared = _squared(matrix, points, targets)
        noise = axis_scale(squared, axes, least_scale)
        before, kept = kept, geman_mcclure(squared, scale)
        if scale < 1.1 * noise and np.abs(kept - before).mean() < 1e-4:
            break
        scale = max(noise, scale / _SHRINK)
    return LinearFit(matrix, kept, noise)


def _start(points: Points, targets: Points) -> affine.Matrix:
    """The median shift."""
    return affine.translation(np.median(targets - points, axis=0).tolist())


def _squared(matrix: affine.Matrix, points: Points, targets: Points) -> Weights:
    return ((affine.apply(matrix, points) - targets) ** 2).mean(axis=1)


def _fitted(points: Points, targets: Points, weights: Weights, model: LinearModel) -> affine.Matrix:
    axes = points.shape[1]
    total = max(float(weights.sum()), 1e-12)
    here, there = (weights @ p / total for p in (points, targets))
    linear = np.eye(axes)
    if model != "translation" and (weights > 0.1).sum() > axes:
        a, b = points - here, targets - there
        spread = (a * weights[:, None]).T @ a
        cross = (b * weights[:, None]).T @ a
        if model == "affine":
            ridge = _RIDGE * np.trace(spread) * np.eye(axes)
            linear = np.linalg.solve(spread + ridge, (cross + ridge).T).T
        else:
            u, size, vt = np.linalg.svd(cross)
            sign = np.ones(axes)
            sign[-1] = np.sign(np.linalg.det(u @ vt))
            linear = u @ np.diag(sign) @ vt
            if model == "similarity":
                linear = linear * float((size * sign).sum() / max(np.trace(spread), 1e-12))
    matrix = np.eye(axes + 1)
    matrix[:axes, :axes], matrix[:axes, axes] = linear, there - linear @ here
    return matrix
