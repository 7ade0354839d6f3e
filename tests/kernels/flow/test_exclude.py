import numpy as np
import pytest

from warpbeam.kernels.flow.exclude import Exclusion, excluded

PIXELS = np.array([[0, 3, 7], [7, 9, 12]], np.uint8)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Exclusion(0, (0, 7)), [[1, 0, 1], [1, 0, 0]]),
        (Exclusion(0, below=3), [[1, 0, 0], [0, 0, 0]]),
        (Exclusion(0, above=9), [[0, 0, 0], [0, 0, 1]]),
        (Exclusion(0, (9,), below=1, above=11), [[1, 0, 0], [0, 1, 1]]),
        (Exclusion(0, (7,), invert=True), [[1, 1, 0], [0, 1, 1]]),
        (Exclusion(0), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_values_and_limits(rule, expected):
    np.testing.assert_array_equal(excluded(PIXELS, rule), np.array(expected, bool))


def test_labels_that_floats_cannot_tell_apart_are_told_apart():
    labels = np.array([[2**40, 2**40 + 1]], np.uint64)
    assert excluded(labels, Exclusion(0, (2**40,))).tolist() == [[True, False]]


def test_growth_reaches_as_far_as_said():
    pixels = np.zeros((31, 31), np.float32)
    pixels[15, 15] = 1
    found = excluded(pixels, Exclusion(0, (1.0,), grow=6))
    y, x = np.mgrid[:31, :31] - 15
    assert found[np.hypot(y, x) <= 5].all()
    assert not found[np.hypot(y, x) > 6.8].any()
    assert found[15, 9]
    assert found[21, 15]
    assert not found[15, 8]
