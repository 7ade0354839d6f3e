"""Size, place and extent of the objects of a volume, which add up over its blocks.

All are whole numbers, so that the order in which parts are added changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy import ndimage

_NOWHERE = np.iinfo(np.int64).max


class Traits(NamedTuple):
    """What is known of `n` objects.

    Attributes:
        voxels: how many each has; 0 for one that is not there.
        low: zyx index of the first voxel of its bounding box.
        high: zyx index behind the last one.
        total: sum of the zyx indices of its voxels.
    """

    voxels: Int[np.ndarray, "n"]
    low: Int[np.ndarray, "n 3"]
    high: Int[np.ndarray, "n 3"]
    total: Int[np.ndarray, "n 3"]

    def take(self, which: np.ndarray) -> Traits:
        """Some of the objects, by number or mask."""
        return Traits(*(column[which] for column in self))

    @property
    def centroid(self) -> Float[np.ndarray, "n 3"]:
        """Mean zyx index of each object's voxels; NaN for one that is not there."""
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = self.total / self.voxels[:, None]
        return mean


def measure(labels: Integer[np.ndarray, "z y x"], start: Sequence[int]) -> Traits:
    """Of the labels 1 to the largest, in a block whose first voxel has the index `start`."""
    count = int(labels.max(initial=0))
    place = np.nonzero(labels)
    owner = labels[place].astype(np.int64)
    voxels = np.bincount(owner, minlength=count + 1)[1:]
    # Sums below 2^53 are exact in float64: indices within a block are small.
    sums = [np.bincount(owner, at, count + 1)[1:].astype(np.int64) for at in place]
    boxes = ndimage.find_objects(labels.astype(np.int64, copy=False), count)
    low = np.full((count, 3), _NOWHERE)
    high = np.full((count, 3), -1)
    for k, box in enumerate(boxes):
        if box is not None:
            low[k] = [s.start + a for s, a in zip(box, start, strict=True)]
            high[k] = [s.stop + a for s, a in zip(box, start, strict=True)]
    total = np.stack(sums, axis=1) + voxels[:, None] * np.asarray(start, np.int64)
    return Traits(voxels, low, high, total)


def nothing() -> Traits:
    """No object at all."""
    none, zyx = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
    return Traits(none, zyx, zyx, zyx)


def joined(parts: Sequence[Traits]) -> Traits:
    """The objects of several lists in one."""
    return Traits(*(np.concatenate(column) for column in zip(nothing(), *parts, strict=True)))


def added(traits: Traits, owner: Int[np.ndarray, "n"], count: int) -> Traits:
    """Parts as the `count` objects that own them (numbers from 0)."""
    out = Traits(
        np.zeros(count, np.int64),
        np.full((count, 3), _NOWHERE),
        np.full((count, 3), -1),
        np.zeros((count, 3), np.int64),
    )
    np.add.at(out.voxels, owner, traits.voxels)
    np.minimum.at(out.low, owner, traits.low)
    np.maximum.at(out.high, owner, traits.high)
    np.add.at(out.total, owner, traits.total)
    return out
