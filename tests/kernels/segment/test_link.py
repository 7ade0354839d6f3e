"""Objects of two sections: overlaps counted by hand, and a law of one-to-one links."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpbeam.kernels.segment.link import mutual_best, overlap_table, returning

FIRST = np.array([[1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 2, 2]])
SECOND = np.array([[7, 7, 9, 9, 9, 0], [7, 7, 9, 9, 9, 0]])


def test_overlaps_are_counted():
    table = overlap_table(FIRST, SECOND)
    assert list(zip(table.first, table.second, table.voxels, strict=True)) == [
        (1, 7, 4), (1, 9, 2), (2, 9, 2)
    ]  # fmt: skip
    np.testing.assert_allclose(table.iou, [4 / 6, 2 / 10, 2 / 8])
    np.testing.assert_allclose(table.of_first, [4 / 6, 2 / 6, 2 / 4])
    np.testing.assert_allclose(table.of_second, [1, 2 / 6, 2 / 6])


@pytest.mark.parametrize(
    ("least", "expected"), [(0.2, [True, False, True]), (0.3, [True, False, False])]
)
def test_the_best_for_both_are_linked(least, expected):
    assert mutual_best(overlap_table(FIRST, SECOND), least).tolist() == expected


def test_of_equally_good_ones_one_is_linked():
    table = overlap_table(np.array([[1, 1]]), np.array([[3, 4]]))
    assert mutual_best(table, 0.1).tolist() == [True, False]


def iou_of(p, q):
    return np.sum(p & q) / np.sum(p | q)


LABELS = hnp.arrays(np.int64, (6, 7), elements=st.integers(0, 4))


@given(LABELS, LABELS)
def test_links_are_one_to_one_and_the_same_from_both_sides(a, b):
    table = overlap_table(a, b)
    linked = table.take(mutual_best(table, 0.0))
    assert len(set(linked.first)) == len(linked.first)
    assert len(set(linked.second)) == len(linked.second)
    for p, q, iou in zip(linked.first, linked.second, linked.iou, strict=True):
        others = [
            np.sum((a == p) & (b == r)) / np.sum((a == p) | (b == r)) for r in np.unique(b[b > 0])
        ]
        assert iou == pytest.approx(max(others))
        assert iou == pytest.approx(np.sum((a == p) & (b == q)) / np.sum((a == p) | (b == q)))


def test_what_does_not_return_is_not_consistent():
    table = overlap_table(FIRST, SECOND)
    back = np.where(np.arange(6) < 2, FIRST, 5)  # the two leftmost columns alone return
    np.testing.assert_allclose(returning(FIRST, SECOND, back, table), [1, 0, 0])
    np.testing.assert_allclose(returning(FIRST, SECOND, FIRST, table), [1, 1, 1])
