"""Multilinear interpolation of a map at any points.

A node that is not known spoils only the points that it has a weight in: a map read exactly at
its own nodes keeps its gaps as they are.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from warpbeam.kernels.maps.coordinate_map import CoordinateMap

Outside = Literal["nan", "nearest"]
Float64 = Float[np.ndarray, "..."]

# Nodes are hit despite rounding of `(p - origin) / stride`; 1e-9 of a stride is below 1e-7 voxel.
_SNAP = 1e-9


def split_index(
    position: Float64, origin: int | float, stride: int | float, count: int, outside: Outside
) -> tuple[Int[np.ndarray, "..."], Float64]:
    """The node at or below each position on one axis, and the share of the next node.

    The share is NaN outside the lattice, unless `outside` is "nearest"; the node is then the
    nearest one. Unknown positions are unknown on either choice.
    """
    index = (position - origin) / stride
    whole = np.rint(index)
    index = np.where(np.abs(index - whole) <= _SNAP * np.maximum(np.abs(whole), 1), whole, index)
    inside = np.clip(index, 0, count - 1)
    index = np.where(index == inside, index, np.nan) if outside == "nan" else inside
    below = np.clip(np.nan_to_num(np.floor(inside)), 0, max(count - 2, 0)).astype(np.int64)
    return below, index - below


def offsets_at(m: CoordinateMap, points: Float64, outside: Outside = "nan") -> Float64:
    """u at any points.

    Args:
        m: a single map.
        points: `[component, ...]`, voxels of A; NaN gives NaN.
        outside: beyond the outermost nodes either not known, or that of the nearest border point.

    Returns:
        The shape of `points`, float64.

    Raises:
        ValueError: a batch of maps.
    """
    if m.batch:
        raise ValueError(f"needs a single map, got a batch of {m.batch}")
    shape = m.lattice.shape
    axes = list(zip(points, m.origin, m.stride, shape, strict=True))
    split = [split_index(p, o, s, n, outside) for p, o, s, n in axes]
    steps = [int(np.prod(shape[i + 1 :])) for i in range(m.ndim)]
    first = sum(below * step for (below, _), step in zip(split, steps, strict=True))
    flat = m.u.reshape(m.ndim, -1).astype(np.float64, copy=False)
    gaps = not np.isfinite(flat).all()
    total = np.zeros(points.shape)
    for corner in itertools.product((0, 1), repeat=m.ndim):
        weight = np.ones(points.shape[1:])
        offset = 0
        for high, (_, share), step, n in zip(corner, split, steps, shape, strict=True):
            weight *= share if high else 1 - share
            offset += step if high and n > 1 else 0
        values = flat.take(first + offset, axis=1)
        if gaps:
            values[:, weight == 0] = 0
        total += weight * values
    return total
