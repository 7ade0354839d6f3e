"""Pieces of an image: two valleys by hand, and what holds for any image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpbeam.kernels.segment.catchment import catchments


def test_two_valleys_are_two_pieces():
    x = np.arange(40)
    height = np.broadcast_to(np.cos(2 * np.pi * x / 20), (10, 40))
    found = catchments(height, (1.0, 1.0))
    assert len(np.unique(found)) == 2
    # minima at 10 and 30, the ridge between them at 20
    np.testing.assert_array_equal(found[:, :20], found[0, 10])
    np.testing.assert_array_equal(found[:, 21:], found[0, 30])


def test_smoothing_leaves_fewer():
    noise = np.random.default_rng(0).normal(0, 1, (20, 40, 40))
    counts = [len(np.unique(catchments(noise, (s,) * 3))) for s in (0.5, 1.0, 2.0)]
    assert counts[0] > 2 * counts[1] > 6 * counts[2]


@given(hnp.arrays(np.float32, st.tuples(*[st.integers(1, 8)] * 3), elements=st.integers(-5, 5)))
def test_every_voxel_has_a_piece(height):
    found = catchments(height, (0.7, 0.7, 0.7))
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(np.unique(found), np.arange(1, found.max() + 1))
