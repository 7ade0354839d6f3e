"""Links measured on reduced strips: a quarter of the work for half of the exactness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Num

from warpbeam.kernels.montage.pair import Link, Strip

Values = Num[np.ndarray, "..."]


def reduced(strip: Strip, factor: Sequence[int]) -> Strip:
    """The strip of the tile's mean pyramid, so many times reduced along each axis.

    Voxels that the strip does not hold in full are left out, and one is valid where all that it
    is the mean of are. Voxel i of the reduced tile lies at `k i + (k - 1) / 2` of the tile.
    """
    if set(factor) == {1}:
        return strip
    values = strip.voxels.astype(np.float32)
    origin = tuple(-(-o // k) for o, k in zip(strip.origin, factor, strict=True))
    skip = [i * k - o for i, o, k in zip(origin, strip.origin, factor, strict=True)]
    count = [(n - s) // k for n, s, k in zip(values.shape, skip, factor, strict=True)]
    inside = tuple(slice(s, s + n * k) for s, n, k in zip(skip, count, factor, strict=True))
    means = _block_sums(values[inside], factor) / np.float32(np.prod(factor))
    mask = strip.mask
    if mask is not None:
        mask = _block_sums(mask[inside].astype(np.uint8), factor) == np.prod(factor)
    return Strip(means, origin, mask)


def _block_sums(values: Values, factor: Sequence[int]) -> Values:
    """The sum of each block of voxels (sums of slices: ten times as fast as of a reshaped axis)."""
    for axis, k in enumerate(factor):
        along = np.moveaxis(values, axis, 0)
        total = along[0::k]
        for i in range(1, k):
            total = total + along[i::k]
        values = np.moveaxis(total, 0, axis)
    return values


def in_full(link: Link, factor: Sequence[int]) -> Link:
    """A link between reduced tiles as one between the tiles."""
    if set(factor) == {1}:
        return link
    k = np.array(factor, np.float64)
    return replace(
        link,
        fixed_points=link.fixed_points * k + (k - 1) / 2,
        moving_points=link.moving_points * k + (k - 1) / 2,
        information=link.information / np.multiply.outer(k, k),
        overlap=link.overlap * int(np.prod(factor)),
    )
