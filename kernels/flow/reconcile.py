"""One flow out of several of different resolution or section gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from warpbeam.kernels.flow.clean import within_deviation
from warpbeam.kernels.flow.components import large_components
from warpbeam.kernels.flow.deform import interpolation
from warpbeam.kernels.flow.smooth import continued
from warpbeam.kernels.geometry.lattice import Lattice


@dataclass(frozen=True)
class ReconcileSettings:
    """What the combined flow must satisfy; None leaves a test out.

    Args:
        max_gradient: largest difference of any component between two neighbouring nodes, voxels;
            both nodes go.
        max_deviation: largest component of the distance from the median of the 3^d valid
            neighbours, voxels.
        min_component: nodes that a connected piece must have.
        min_gap: flows across fewer sections than this fill nothing in; the first is kept.
    """

    max_gradient: float | None = None
    max_deviation: float | None = None
    min_component: int | None = None
    min_gap: int = 0


def reconcile(
    candidates: Sequence[Float[np.ndarray, "d *nodes"]],
    settings: ReconcileSettings,
    *,
    gaps: Sequence[Int[np.ndarray, "*nodes"]] | None = None,
) -> tuple[Float[np.ndarray, "d *nodes"], Int[np.ndarray, "*nodes"]]:
    """Takes each node's vector from the first candidate that has one, then tests the whole.

    All on one lattice (see `on_lattice`) and in one unit; NaN = no vector. `gaps` says across
    how many sections each vector goes, with sign; without it all are 1. Returns the vectors
    and their gaps, 0 where there is no vector.

    Raises:
        ValueError: no candidates, or shapes differ.
    """
    if not candidates:
        raise ValueError("no flow to reconcile")
    shape = candidates[0].shape
    ones = [np.ones(shape[1:], np.int64)] * len(candidates)
    spans = list(gaps) if gaps is not None else ones
    if any(c.shape != shape for c in candidates) or [g.shape for g in spans] != [shape[1:]] * len(
        candidates
    ):
        raise ValueError(
            f"shapes differ: {[c.shape for c in candidates]}, gaps {[g.shape for g in spans]}"
        )
    vectors = np.full(shape, np.nan)
    gap = np.zeros(shape[1:], np.int64)
    for i, (candidate, span) in enumerate(zip(candidates, spans, strict=True)):
        use = ~_valid(vectors) & _valid(candidate)
        if i:
            use &= np.abs(span) >= settings.min_gap
        vectors[:, use] = candidate[:, use]
        gap[use] = span[use]
    if settings.max_gradient is not None:
        vectors[:, _steep(vectors, settings.max_gradient)] = np.nan
    if settings.max_deviation is not None:
        vectors[:, ~within_deviation(vectors, settings.max_deviation)] = np.nan
    if settings.min_component is not None:
        vectors[:, ~large_components(_valid(vectors), settings.min_component)] = np.nan
    return vectors, np.where(_valid(vectors), gap, 0)


def on_lattice(
    vectors: Float[np.ndarray, "d *nodes"], source: Lattice, target: Lattice
) -> Float[np.ndarray, "d *targets"]:
    """A flow at the nodes of another lattice; both lattices and vectors in the same voxels.

    Cubic between nodes, the nearest vector standing in for NaN ones; NaN where the nearest node
    of `source` is NaN or more than one stride away. Lengths are
    not rescaled: use `Lattice.at_scale` and one unit first.
    """
    out = continued(vectors)
    near = _valid(vectors)
    for axis in range(near.ndim):
        at = target.along(axis)
        matrix = interpolation(source, axis, at)
        out = np.moveaxis(np.tensordot(out, matrix, ((axis + 1,), (1,))), -1, axis + 1)
        index = (at - source.origin[axis]) / source.stride[axis]
        inside = (index >= -1) & (index <= source.shape[axis])
        nearest = np.clip(np.rint(index).astype(int), 0, source.shape[axis] - 1)
        near = np.take(near, nearest, axis=axis)
        near = near & inside.reshape([-1 if a == axis else 1 for a in range(near.ndim)])
    return np.where(near, out, np.nan)


def _valid(vectors: Float[np.ndarray, "d *nodes"]) -> Bool[np.ndarray, "*nodes"]:
    return np.isfinite(vectors).all(axis=0)


def _steep(vectors: Float[np.ndarray, "d *nodes"], limit: float) -> Bool[np.ndarray, "*nodes"]:
    """Both nodes of every step larger than `limit`."""
    out = np.zeros(vectors.shape[1:], bool)
    for axis in range(out.ndim):
        step = np.abs(np.diff(vectors, axis=axis + 1))
        large = (np.where(np.isfinite(step), step, 0) > limit).any(axis=0)
        for side in ((1, 0), (0, 1)):
            pad = [(0, 0)] * out.ndim
            pad[axis] = side
            out |= np.pad(large, pad)
    return out
