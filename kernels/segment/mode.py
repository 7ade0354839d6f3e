"""Label images made smaller: each block of voxels becomes its most frequent value."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped


def reduced_mode(
    labels: Shaped[np.ndarray, "..."], factor: Sequence[int]
) -> Shaped[np.ndarray, "..."]:
    """The most frequent value of each block; of several such, the smallest.

    Nearly all blocks of a label image hold one value: the others alone are sorted.

    Args:
        labels: of a shape that blocks divide.
        factor: size of a block along each axis.

    Raises:
        ValueError: blocks do not divide the image.
    """
    if any(n % f for n, f in zip(labels.shape, factor, strict=True)):
        raise ValueError(f"blocks {tuple(factor)} do not divide an image {labels.shape}")
    places = itertools.product(*map(range, factor))
    first, *others = (
        labels[tuple(slice(k, None, f) for k, f in zip(place, factor, strict=True))]
        for place in places
    )
    out = np.ascontiguousarray(first)
    mixed = np.zeros(out.shape, np.bool_)
    for other in others:
        mixed |= other != first
    where = np.nonzero(mixed)
    if where[0].size:
        out = out.copy() if np.shares_memory(out, labels) else out
        out[where] = _mode(np.stack([part[where] for part in (first, *others)], axis=1))
    return out


def _mode(values: Shaped[np.ndarray, "blocks n"]) -> Shaped[np.ndarray, "blocks"]:
    """The most frequent value of each row; of several such, the smallest."""
    rising = np.sort(values, axis=1)
    run = np.zeros(rising.shape, np.int64)
    for k in range(1, rising.shape[1]):
        run[:, k] = np.where(rising[:, k] == rising[:, k - 1], run[:, k - 1] + 1, 0)
    # A run's last voxel has its length; argmax takes the first, that of the smallest value.
    last: np.ndarray = rising[np.arange(len(rising)), run.argmax(axis=1)]
    return last
