"""Which objects of two sections are one: those that overlap most, each the other's best.

The labels of the second section are drawn where the first one shows the same tissue (see
`section_map`); then objects are compared as they lie. An object that is best for no one, or whose
best is better off with another, stays alone: joining what should be apart is the dearer error,
because it goes on through the whole stack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from warpbeam.kernels.segment.metrics import overlaps

Labels = Integer[np.ndarray, "*shape"]


class Overlaps(NamedTuple):
    """Pairs of objects that share voxels.

    Attributes:
        first, second: labels in the two images.
        voxels: how many they share.
        iou: intersection over union.
        of_first, of_second: share of each object that lies in the other: containment.
    """

    first: Integer[np.ndarray, "pairs"]
    second: Integer[np.ndarray, "pairs"]
    voxels: Int[np.ndarray, "pairs"]
    iou: Float[np.ndarray, "pairs"]
    of_first: Float[np.ndarray, "pairs"]
    of_second: Float[np.ndarray, "pairs"]

    def take(self, wanted: Bool[np.ndarray, "pairs"]) -> Overlaps:
        """Some of the pairs."""
        return Overlaps(*(column[wanted] for column in self))


def overlap_table(first: Labels, second: Labels) -> Overlaps:
    """All pairs of objects of two label images of one shape; 0 is background."""
    a, b, common = overlaps(first, second)
    sizes = [_sizes_of(labels, of) for labels, of in ((first, a), (second, b))]
    return Overlaps(
        a, b, common, common / (sizes[0] + sizes[1] - common), common / sizes[0], common / sizes[1]
    )


def _sizes_of(labels: Labels, of: np.ndarray) -> Int[np.ndarray, "pairs"]:
    found, counts = np.unique(labels, return_counts=True)
    return counts[np.searchsorted(found, of)]


def mutual_best(table: Overlaps, least_iou: float) -> Bool[np.ndarray, "pairs"]:
    """Pairs that are each other's best, with at least this intersection over union.

    Of several that are equally good the first one counts, so that no object is in two pairs.
    """
    order = np.lexsort((table.second, table.first, -table.iou))
    best = np.zeros(len(order), bool)
    leads = [_first_of_each(column[order]) for column in (table.first, table.second)]
    best[order] = leads[0] & leads[1]
    return best & (table.iou >= least_iou)


def _first_of_each(values: np.ndarray) -> Bool[np.ndarray, "n"]:
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def returning(
    first: Labels, there: Labels, back: Labels, table: Overlaps
) -> Float[np.ndarray, "pairs"]:
    """Forward-backward consistency: how much of what two objects share returns to the first.

    Args:
        first: labels of the first section.
        there: labels of the second one, drawn on the first.
        back: the first section's labels drawn on the second, and that again on the first; where
            both maps are right it is `first`.
        table: of `first` and `there`.

    Returns:
        For each pair the share of its common voxels, 0 to 1, whose label in `back` is the first
        object's.
    """
    agreed = overlap_table(np.where(back == first, first, 0), there)
    both = {(a, b): n for a, b, n in zip(*(c.tolist() for c in agreed[:3]), strict=True)}
    pairs = zip(table.first.tolist(), table.second.tolist(), strict=True)
    return np.array([both.get(pair, 0) for pair in pairs], float) / table.voxels
