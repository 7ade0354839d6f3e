import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.geometry.layout import components, overlapping_pairs


def brute_force(start, stop, least):
    return [
        (i, j)
        for i, j in itertools.combinations(range(len(start)), 2)
        if all(
            min(stop[i][k], stop[j][k]) - max(start[i][k], start[j][k]) >= least[k]
            for k in range(len(start[i]))
        )
    ]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    d=st.integers(1, 4),
    spread=st.sampled_from([1, 5, 40, 100000]),
    whole=st.booleans(),
    huge=st.booleans(),
)
def test_same_pairs_as_brute_force(seed, n, d, spread, whole, huge):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-spread, spread, (n, d))
    extent = rng.uniform(-1, 12, (n, d))
    if huge and n:
        extent[rng.integers(n)] *= 1000
    if whole:
        start, extent = np.round(start).astype(int), np.round(extent).astype(int)
    least = rng.integers(1, 5, d)
    pairs = overlapping_pairs(start, start + extent, min_extent=least.tolist())
    assert pairs.shape[1] == 2
    assert [tuple(p) for p in pairs.tolist()] == brute_force(start, start + extent, least)


def test_the_least_overlap_counts_to_the_voxel():
    start = np.array([[0, 0], [0, 90]])
    stop = start + 100
    assert len(overlapping_pairs(start, stop, min_extent=10)) == 1
    assert len(overlapping_pairs(start, stop, min_extent=11)) == 0
    assert len(overlapping_pairs(start, stop, min_extent=(100, 10))) == 1
    assert len(overlapping_pairs(start, stop, min_extent=(101, 10))) == 0


def test_many_tiles_in_a_moment():
    side = 300
    start = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 2) * 90
    began = time.process_time()
    pairs = overlapping_pairs(start, start + 100)
    assert time.process_time() - began < 3
    assert len(pairs) == 2 * side * (side - 1) + 2 * (side - 1) ** 2


def test_a_huge_box_among_many_small_ones():
    start = np.append(np.arange(20000)[:, None] * [20, 0], [[0, 0]], axis=0)
    stop = start + 10
    stop[-1] = 20000 * 20
    pairs = overlapping_pairs(start, stop)
    assert np.array_equal(pairs, np.stack([np.arange(20000), np.full(20000, 20000)], 1))


@pytest.mark.parametrize("least", [0, -1, (1, 0)])
def test_the_least_overlap_must_be_positive(least):
    with pytest.raises(ValueError, match="positive"):
        overlapping_pairs(np.zeros((2, 2)), np.ones((2, 2)), min_extent=least)


def test_nan_corners_are_refused():
    with pytest.raises(ValueError, match="finite"):
        overlapping_pairs(np.array([[0.0, np.nan]]), np.ones((1, 2)))


def test_components_are_numbered_by_size_then_by_first_tile():
    pairs = np.array([[6, 7], [1, 3], [3, 5], [0, 4]])
    assert components(8, pairs).tolist() == [1, 0, 3, 0, 1, 0, 2, 2]


def test_no_pairs_leaves_every_tile_alone():
    assert components(3, np.empty((0, 2), int)).tolist() == [0, 1, 2]


def test_pairs_that_name_no_tile_are_refused():
    with pytest.raises(ValueError, match="there are 3"):
        components(3, np.array([[0, 3]]))
