"""A smooth, robust version of a flow: local quadratics through the vectors around each node.

Windows that overlap do not see displacements that alternate from node to node; without a filter
such errors, once there, stay through every refinement step and grow (Astarita, Exp. Fluids
2007, doi 10.1007/s00348-007-0363-1). The fits are reweighted (Cauchy), so that single wrong
vectors count for little, and they bridge gaps.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

_REWEIGHTINGS = 3
# Deviations that are noise and not an outlier are at least this, voxels.
_LEAST_SCALE_PX = 0.2
# Holds the slopes (weakly) and the curvatures where few neighbours are known.
_RIDGE_SLOPE = 0.01
_RIDGE_CURVATURE = 0.05


def smooth_vectors(
    vectors: Float[np.ndarray, "d *nodes"],
    weights: Float[np.ndarray, "*nodes"],
    *,
    radius: int,
) -> Float[np.ndarray, "d *nodes"]:
    """The value at each node of the quadratic through the vectors within `radius` nodes.

    `weights` say how much each vector counts; NaN vectors count nothing. NaN where no vector is
    known within `radius`.
    """
    rank = vectors.ndim - 1
    known = np.isfinite(vectors).all(axis=0) & (weights > 0)
    values = _around(np.where(known, vectors, 0), radius)
    base = _around(np.where(known, weights, 0)[None], radius)[:, 0]
    offsets = _offsets(radius, rank)
    base = base * _nearness(offsets, radius)[:, None]
    terms = _terms(offsets / radius)
    ridge = np.repeat([1e-9, _RIDGE_SLOPE, _RIDGE_CURVATURE], [1, rank, terms.shape[1] - 1 - rank])
    fit = _fit(terms, values, base, ridge)
    for _ in range(_REWEIGHTINGS):
        gap = np.sqrt(((values - np.tensordot(terms, fit, 1)) ** 2).sum(axis=1))
        scale = np.maximum(_weighted_scale(gap, base), _LEAST_SCALE_PX)
        fit = _fit(terms, values, base / (1 + (gap / (2 * scale)) ** 2), ridge)
    return np.where(base.sum(axis=0) > 0, fit[0], np.nan).reshape(vectors.shape)


def continued(vectors: Float[np.ndarray, "d *nodes"]) -> Float[np.ndarray, "d *nodes"]:
    """NaN nodes get the vector of the nearest node that has one; 0 where there is none."""
    missing = ~np.isfinite(vectors).all(axis=0)
    if missing.all():
        return np.zeros_like(vectors)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return vectors[(slice(None), *nearest)]


def support(
    agreeing: Bool[np.ndarray, "*nodes"], measured: Bool[np.ndarray, "*nodes"], *, radius: int
) -> Float[np.ndarray, "*nodes"]:
    """Which part, 0 to 1, of the measured nodes within `radius` is agreeing; near ones count more.

    0 where nothing nearby was measured.
    """
    offsets = _offsets(radius, agreeing.ndim)
    near = _nearness(offsets, radius)
    total, good = (
        near @ _around(part[None].astype(float), radius)[:, 0]
        for part in (measured, agreeing & measured)
    )
    return (good / np.where(total > 0, total, 1)).reshape(agreeing.shape)


def _offsets(radius: int, rank: int) -> Float[np.ndarray, "k d"]:
    return np.array(list(itertools.product(range(-radius, radius + 1), repeat=rank)), float)


def _nearness(offsets: Float[np.ndarray, "k d"], radius: int) -> Float[np.ndarray, " k"]:
    return np.exp(-0.5 * (offsets**2).sum(axis=1) / max(radius / 1.5, 0.5) ** 2)


def _around(values: Float[np.ndarray, "c *nodes"], radius: int) -> Float[np.ndarray, "k c n"]:
    """The values of all nodes within `radius` of each node, 0 beyond the edge."""
    rank, nodes = values.ndim - 1, values.shape[1:]
    wide = np.pad(values, [(0, 0)] + [(radius, radius)] * rank)
    parts = [
        wide[(slice(None), *(slice(o, o + n) for o, n in zip(off, nodes, strict=True)))]
        for off in itertools.product(range(2 * radius + 1), repeat=rank)
    ]
    return np.stack(parts).reshape(len(parts), len(values), -1)


def _terms(x: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k q"]:
    rank = x.shape[1]
    pairs = [(i, j) for i in range(rank) for j in range(i, rank)]
    return np.stack([np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i, j in pairs)], axis=-1)


def _fit(
    terms: Float[np.ndarray, "k q"],
    values: Float[np.ndarray, "k c n"],
    weight: Float[np.ndarray, "k n"],
    ridge: Float[np.ndarray, " q"],
) -> Float[np.ndarray, "q c n"]:
    """The weighted least-squares coefficients at every node."""
    size, nodes = terms.shape[1], weight.shape[1]
    outer = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    matrix = (outer.T @ weight).reshape(size, size, nodes)
    total = np.maximum(weight.sum(axis=0), 1e-12)
    for i, held in enumerate(ridge):
        matrix[i, i] += held * total + 1e-12
    weighted = weight[:, None] * values
    right = terms.T @ weighted.reshape(len(terms), -1)
    return _solved(matrix, right.reshape(size, -1, nodes))


def _solved(
    matrix: Float[np.ndarray, "q q n"], right: Float[np.ndarray, "q c n"]
) -> Float[np.ndarray, "q c n"]:
    """Solves a small system at every node, all nodes at once; both arguments are used up.

    Elimination without pivots is stable for positive definite matrices, and for thousands of them
    several times faster than a call of LAPACK for each.
    """
    size = len(matrix)
    for i in range(size):
        for j in range(i + 1, size):
            factor = matrix[j, i] / matrix[i, i]
            matrix[j, i + 1 :] -= factor * matrix[i, i + 1 :]
            right[j] -= factor * right[i]
    for i in reversed(range(size)):
        for j in range(i + 1, size):
            right[i] -= matrix[i, j] * right[j]
        right[i] /= matrix[i, i]
    return right


def _weighted_scale(
    gap: Float[np.ndarray, "k n"], weight: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, " n"]:
    """The median deviation of the neighbours that count."""
    counted = np.sort(np.where(weight > 0, gap, np.inf), axis=0)
    count = (weight > 0).sum(axis=0)
    middle = np.take_along_axis(counted, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    return np.where(count > 0, np.where(np.isfinite(middle), middle, 0), 0)
