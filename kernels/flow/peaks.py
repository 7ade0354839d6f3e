"""The best peak of correlation surfaces, how sure it is, and where it lies between voxels.

All arrays hold a batch of surfaces, and every reduction is over one surface.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32


class Peaks(NamedTuple):
    """The highest peak of each surface.

    `position` (voxels of the surface, array order) is between voxels and NaN where there is no
    peak: nothing but NaN, or the highest value is on the rim and may still rise beyond.
    `voxel` is that of the peak. `value` is the surface there. `ratio` is `value` over that
    of the second highest local maximum, inf where there is none above zero. `sharpness` is
    `value` over the least value around the peak, inf where that is not above zero.
    """

    position: Float32[jax.Array, "b d"]
    voxel: jax.Array
    value: Float32[jax.Array, " b"]
    ratio: Float32[jax.Array, " b"]
    sharpness: Float32[jax.Array, " b"]


def find_peaks(
    surface: Float32[jax.Array, "b *shifts"],
    *,
    min_distance: Sequence[int],
    sharpness_radius: Sequence[int],
) -> Peaks:
    """Finds the peak of each surface.

    A second peak is a local maximum further than `min_distance` from the first along some axis.
    Sharpness looks `sharpness_radius` far along each axis. NaN in `surface` = not known.

    Raises:
        ValueError: ranks differ.
    """
    shape = surface.shape[1:]
    if not len(shape) == len(min_distance) == len(sharpness_radius):
        raise ValueError(f"ranks differ: {shape}, {min_distance}, {sharpness_radius}")
    known = jnp.isfinite(surface)
    filled = jnp.where(known, surface, -jnp.inf)
    index = _argmax(filled)
    value = jnp.where(known.any(tuple(range(1, surface.ndim))), _at(filled, index), jnp.nan)
    steps = [
        jnp.abs(jnp.arange(n) - index[:, a, None]).reshape(
            -1, *(n if b == a else 1 for b in range(len(shape)))
        )
        for a, n in enumerate(shape)
    ]
    far = _any_exceeds(steps, min_distance)
    near = ~_any_exceeds(steps, sharpness_radius)
    axes = tuple(range(1, surface.ndim))
    second = jnp.where(far & _local_maxima(filled), filled, -jnp.inf).max(axes)
    least = jnp.where(near & known, filled, jnp.inf).min(axes)
    inside = jnp.stack(
        [(index[:, a] > 0) & (index[:, a] < n - 1) for a, n in enumerate(shape)], -1
    ).all(-1)
    position = index + _subvoxel(filled, index)
    good = inside & (value > 0)
    return Peaks(
        jnp.where(good[:, None], position, jnp.nan),
        index,
        value,
        jnp.where(second > 0, value / jnp.where(second > 0, second, 1), jnp.inf),
        jnp.where(least > 0, value / jnp.where(least > 0, least, 1), jnp.inf),
    )


def _argmax(surface: Float32[jax.Array, "b *shifts"]) -> jax.Array:
    flat = jnp.argmax(surface.reshape(len(surface), -1), axis=1)
    return jnp.stack(jnp.unravel_index(flat, surface.shape[1:]), -1)


def _at(surface: Float32[jax.Array, "b *shifts"], index: jax.Array) -> Float32[jax.Array, " b"]:
    return surface[(np.arange(len(surface)), *index.T)]


def _any_exceeds(steps: list[jax.Array], limits: Sequence[int]) -> Bool[jax.Array, "b *shifts"]:
    out = steps[0] > limits[0]
    for step, limit in zip(steps[1:], limits[1:], strict=True):
        out = out | (step > limit)
    return out


def _local_maxima(surface: Float32[jax.Array, "b *shifts"]) -> Bool[jax.Array, "b *shifts"]:
    """Not below any neighbour, diagonals included; the rim counts."""
    highest = surface
    for axis in range(1, surface.ndim):
        pad = [(0, 0)] * surface.ndim
        pad[axis] = (1, 1)
        wide = jnp.pad(highest, pad, constant_values=-jnp.inf)
        n = surface.shape[axis]
        parts = [jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(3)]
        highest = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
    return surface >= highest


def _subvoxel(
    surface: Float32[jax.Array, "b *shifts"], index: jax.Array
) -> Float32[jax.Array, "b d"]:
    """The top of the least-squares quadric through the 3^d values around the peak.

    0 where one of them is not known or the quadric has no top within one voxel.
    """
    rank = index.shape[1]
    corners = [jnp.clip(index[:, a] - 1, 0, max(n - 3, 0)) for a, n in enumerate(surface.shape[1:])]
    if any(n < 3 for n in surface.shape[1:]):
        return jnp.zeros(index.shape, jnp.float32)
    offsets = np.array(list(itertools.product(range(3), repeat=rank)))
    around = (c[:, None] + o for c, o in zip(corners, offsets.T, strict=True))
    values = surface[(np.arange(len(surface))[:, None], *around)]
    linear, curvature = _quadric(offsets - 1.0)
    slope = values @ linear.T
    bend = jnp.einsum("bv,ijv->bij", values, curvature)
    known = jnp.isfinite(values).all(-1)
    bend = jnp.where(known[:, None, None], bend, -jnp.eye(rank, dtype=jnp.float32))
    top, peaked = solve_small(-bend, jnp.where(known[:, None], slope, 0))
    good = known & peaked & (jnp.abs(top) <= 1).all(-1)
    return jnp.where(good[:, None], top, 0)


def _quadric(
    x: Float[np.ndarray, "v d"],
) -> tuple[Float32[np.ndarray, "d v"], Float32[np.ndarray, "d d v"]]:
    """Filters that give slope and second derivatives of the least-squares quadric at 0."""
    rank = x.shape[1]
    pairs = [(i, j) for i in range(rank) for j in range(i, rank)]
    terms = [np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i, j in pairs)]
    fit = np.linalg.pinv(np.stack(terms, -1))
    bend = np.zeros((rank, rank, len(x)))
    for (i, j), row in zip(pairs, fit[1 + rank :], strict=True):
        bend[i, j] += row
        bend[j, i] += row
    return fit[1 : 1 + rank].astype(np.float32), bend.astype(np.float32)


def solve_small(
    matrix: Float32[jax.Array, "b d d"], right: Float32[jax.Array, "b d"]
) -> tuple[Float32[jax.Array, "b d"], Bool[jax.Array, " b"]]:
    """Solves symmetric systems of 1 to 3 unknowns by Cholesky's method.

    Returns the solutions and whether each matrix was positive definite; solutions of those that
    were not are 0. (Written out: a batched library solver costs more than all the rest.)
    """
    rank = matrix.shape[-1]
    lower: dict[tuple[int, int], jax.Array] = {}
    good = jnp.ones(len(matrix), bool)
    for i in range(rank):
        for j in range(i + 1):
            rest = matrix[:, i, j]
            for k in range(j):
                rest = rest - lower[i, k] * lower[j, k]
            if i == j:
                good = good & (rest > 1e-12)
                lower[i, i] = jnp.sqrt(jnp.where(rest > 1e-12, rest, 1))
            else:
                lower[i, j] = rest / lower[j, j]
    half: list[jax.Array] = []
    for i in range(rank):
        known = sum((lower[i, k] * half[k] for k in range(i)), start=jnp.zeros(()))
        half.append((right[:, i] - known) / lower[i, i])
    out: list[jax.Array] = [jnp.zeros(())] * rank
    for i in reversed(range(rank)):
        known = sum((lower[k, i] * out[k] for k in range(i + 1, rank)), start=jnp.zeros(()))
        out[i] = (half[i] - known) / lower[i, i]
    return jnp.where(good[:, None], jnp.stack(out, -1), 0), good
