"""A map at other nodes of the same frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import interpolate

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.fill import fill_nearest
from warpbeam.kernels.maps.interpolate import Outside, split_index

Method = Literal["nearest", "linear", "cubic"]
Float64 = Float[np.ndarray, "..."]


def resample(
    m: CoordinateMap, lattice: Lattice, method: Method = "linear", *, outside: Outside = "nan"
) -> CoordinateMap:
    """The same map on another lattice. Offsets stay in the same voxels: nothing is scaled.

    Args:
        m: a map or a batch.
        lattice: where to sample it, in the frame of `m`.
        method: "cubic" is the tensor product of C2 splines with "not-a-knot" ends
            (de Boor 1978); it is exact for polynomials of degree 3 on each axis.
        outside: beyond the outermost nodes either not known, or that of the nearest border point.

    Returns:
        A map in the dtype of `m`. NaN where an unknown node has a weight in linear
        interpolation ("nearest": where the nearest node is not known).

    Raises:
        ValueError: the ranks differ.
    """
    if lattice.ndim != m.ndim:
        raise ValueError(f"a {m.ndim}-D map cannot be sampled on a {lattice.ndim}-D lattice")
    values = m.u.astype(np.float64)
    if method == "cubic":
        known = _separable(values, m, lattice, "linear", outside)
        smooth = _separable(fill_nearest(m).u.astype(np.float64), m, lattice, method, "nearest")
        values = np.where(np.isfinite(known), smooth, np.nan)
    else:
        values = _separable(values, m, lattice, method, outside)
    return on_lattice(values.astype(m.u.dtype), lattice)


def _separable(
    values: Float64, m: CoordinateMap, lattice: Lattice, method: Method, outside: Outside
) -> Float64:
    for axis in range(m.ndim):
        below, share = split_index(
            lattice.along(axis), m.origin[axis], m.stride[axis], m.lattice.shape[axis], outside
        )
        along = np.moveaxis(values, axis - m.ndim, -1)
        values = np.moveaxis(_along_last(along, below, share, method), -1, axis - m.ndim)
    return values


def _along_last(
    values: Float64, below: np.ndarray, share: Float[np.ndarray, " n"], method: Method
) -> Float64:
    count = values.shape[-1]
    above = np.minimum(below + 1, count - 1)
    if method == "cubic" and count > 1:
        nodes = np.clip(np.nan_to_num(below + share), 0, count - 1)
        found = interpolate.CubicSpline(np.arange(count), values, axis=-1)(nodes)
        return np.where(np.isnan(share), np.nan, found)
    low, high = values[..., below], values[..., above]
    if method == "nearest":
        return np.where(np.isnan(share), np.nan, np.where(share < 0.5, low, high))
    between = low + (high - low) * share
    return np.where(share == 0, low, np.where(share == 1, high, between))
