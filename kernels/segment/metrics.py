"""How well a segmentation agrees with the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.optimize import linear_sum_assignment
from skimage import metrics


class Matches(NamedTuple):
    """Objects of the truth that were found, of all that are there and all that were found."""

    matched: int
    truth: int
    found: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find."""
        total = self.truth + self.found
        return 2 * self.matched / total if total else 1.0

    def __add__(self, other: object) -> Matches:
        if not isinstance(other, Matches):
            return NotImplemented
        return Matches(*(a + b for a, b in zip(self, other, strict=True)))


def matches(
    truth: Integer[np.ndarray, "*shape"], found: Integer[np.ndarray, "*shape"], iou: float
) -> Matches:
    """One-to-one matches of objects with an intersection over union of more than `iou`."""
    a, b, overlap = overlaps(truth, found)
    sizes_a, sizes_b = _sizes(truth), _sizes(found)
    share = overlap / (sizes_a[1][np.searchsorted(sizes_a[0], a)]
                       + sizes_b[1][np.searchsorted(sizes_b[0], b)] - overlap)  # fmt: skip
    good = share > iou
    matched = int(good.sum())
    if iou < 0.5:  # below a half, an object can match several
        matched = _assigned(a[good], b[good], share[good])
    return Matches(matched, sizes_a[0].size, sizes_b[0].size)


def _assigned(a: np.ndarray, b: np.ndarray, share: Float[np.ndarray, "pairs"]) -> int:
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    table = np.zeros((rows.size, columns.size))
    table[row, column] = share
    chosen = linear_sum_assignment(table, maximize=True)
    return int((table[chosen] > 0).sum())


def overlaps(
    a: Integer[np.ndarray, "*shape"], b: Integer[np.ndarray, "*shape"]
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "pairs"]]:
    """Labels of each pair of objects that share pixels, and how many; 0 is background."""
    both = (a != 0) & (b != 0)
    first, i = np.unique(a[both], return_inverse=True)
    second, j = np.unique(b[both], return_inverse=True)
    codes, counts = np.unique(
        i.reshape(-1) * max(second.size, 1) + j.reshape(-1), return_counts=True
    )
    return first[codes // max(second.size, 1)], second[codes % max(second.size, 1)], counts


def _sizes(labels: Integer[np.ndarray, "*shape"]) -> tuple[np.ndarray, Int[np.ndarray, "labels"]]:
    return np.unique(labels[labels != 0], return_counts=True)


class Agreement(NamedTuple):
    """Adapted Rand error, and the two parts of the variation of information in bits."""

    rand_error: float
    split: float
    merge: float


def agreement(
    truth: Integer[np.ndarray, "*shape"], found: Integer[np.ndarray, "*shape"]
) -> Agreement:
    """`skimage.metrics` on labels of any size; pixels without truth (0) are left out.

    `split` is what the truth leaves open about the segmentation, H(found | truth), `merge` the
    other way round.
    """
    known = truth != 0
    a, b = (np.unique(x[known], return_inverse=True)[1].reshape(-1) + 1 for x in (truth, found))
    if not a.size:
        return Agreement(0.0, 0.0, 0.0)
    error, _, _ = metrics.adapted_rand_error(a, b)
    split, merge = metrics.variation_of_information(a, b)
    return Agreement(float(error), float(split), float(merge))
