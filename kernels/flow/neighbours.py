"""Medians of the valid neighbours of each node, and what they say of outliers."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float

# Noise that vectors may have without being outliers, voxels (Westerweel and Scarano).
_NOISE_PX = 0.1


def neighbour_stack(
    values: Float[np.ndarray, "c *nodes"], radius: int, *, centre: bool
) -> Float[np.ndarray, "k c *nodes"]:
    """The values of the nodes within `radius` along every axis; NaN beyond the edge."""
    rank = values.ndim - 1
    pad = [(0, 0)] + [(radius, radius)] * rank
    wide = np.pad(values, pad, constant_values=np.nan)
    offsets = itertools.product(range(2 * radius + 1), repeat=rank)
    shape = values.shape[1:]
    return np.stack(
        [
            wide[(slice(None), *(slice(o, o + n) for o, n in zip(off, shape, strict=True)))]
            for off in offsets
            if centre or off != (radius,) * rank
        ]
    )


def nan_median(stack: Float[np.ndarray, "k *rest"]) -> Float[np.ndarray, "*rest"]:
    """The median of what is not NaN along the first axis; NaN where all is."""
    ordered = np.sort(stack, axis=0)
    count = np.isfinite(ordered).sum(axis=0)[None]
    low, high = (
        np.take_along_axis(ordered, np.maximum(at, 0), axis=0)[0]
        for at in ((count - 1) // 2, np.minimum(count // 2, np.maximum(count - 1, 0)))
    )
    return np.where(count[0] > 0, (low + high) / 2, np.nan)


def outliers(
    vectors: Float[np.ndarray, "d *nodes"], *, threshold: float, radius: int = 1
) -> Bool[np.ndarray, "*nodes"]:
    """Nodes further from the median of their neighbours than `threshold` times the median
    distance of those neighbours from it.

    The "normalised median test" of Westerweel and Scarano (Exp. Fluids 2005,
    doi 10.1007/s00348-005-0016-6). A node without valid neighbours is no outlier.
    """
    around = neighbour_stack(vectors, radius, centre=False)
    middle = nan_median(around)
    spread = nan_median(np.abs(around - middle))
    ratio = np.abs(vectors - middle) / (spread + _NOISE_PX)
    return np.asarray((np.where(np.isfinite(ratio), ratio, 0) > threshold).any(axis=0))
