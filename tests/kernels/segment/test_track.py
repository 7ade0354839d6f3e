"""Tracking: one-to-one, after the common shift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from warpbeam.kernels.segment.track import Cells, TrackSettings, assign, common_shift, identities

REACH = TrackSettings(40.0, 15.0, 10.0)


def plain(at):
    """Cells that all look alike."""
    return Cells(at, np.zeros((len(at), 2)))


def cells(seed, count=120, size=600.0):
    return np.random.default_rng(seed).uniform(0, size, (count, 2))


@pytest.mark.parametrize("shift", [(0, 0), (12, -25), (-30, 20.5)])
def test_the_common_shift_is_found(shift):
    rng = np.random.default_rng(1)
    before = cells(0)
    after = rng.permutation(before + np.array(shift) + rng.normal(0, 2, before.shape))[10:]
    np.testing.assert_allclose(common_shift(before, after, REACH), shift, atol=1.5)


def test_cells_are_found_again_whatever_their_order():
    rng = np.random.default_rng(2)
    before = cells(3)
    order = rng.permutation(len(before))
    after = (before + np.array([18, -22]) + rng.normal(0, 1.5, before.shape))[order]
    a, b = assign(plain(before), plain(after), REACH)
    assert np.unique(a).size == a.size == np.unique(b).size
    assert (order[b] == a).mean() > 0.99
    assert a.size >= 119


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12), st.integers(0, 12))
def test_the_assignment_is_the_best_one(seed, n, m):
    rng = np.random.default_rng(seed)
    before, after = rng.uniform(0, 40, (n, 2)), rng.uniform(0, 40, (m, 2))
    a, b = assign(plain(before), plain(after), REACH)
    squares = cdist(before + common_shift(before, after, REACH), after) ** 2
    assert (squares[a, b] <= REACH.step_px**2 + 1e-9).all()
    # Dense, by another solver: each cell may take a partner of its own, at the price of a step.
    price = np.full((n + m, n + m), REACH.step_px**2)
    price[:n, :m] = np.where(squares <= REACH.step_px**2, squares, 1e9)
    price[n:, m:] = 0
    rows, columns = linear_sum_assignment(price)
    mine = squares[a, b].sum() + (n + m - 2 * a.size) * REACH.step_px**2
    assert mine == pytest.approx(price[rows, columns].sum())


def test_no_identity_is_given_twice():
    rng = np.random.default_rng(4)
    base = cells(5, 200)
    times = []
    for k in range(5):
        here = base + np.array([7, -5]) * k + rng.normal(0, 2, base.shape)
        times.append(here[rng.random(len(base)) > 0.05])
    found = identities([plain(at) for at in times], REACH)
    for own, points in zip(found, times, strict=True):
        assert len(own) == len(points)
        assert np.unique(own).size == own.size
        assert (own > 0).all()


def test_what_leaves_and_what_comes():
    first = np.array([[10.0, 10], [50, 50], [90, 90]])
    second = np.array([[51.0, 51], [91, 91], [10, 90]])
    one, two, three = identities(list(map(plain, (first, second, np.zeros((0, 2))))), REACH)
    assert one.tolist() == [1, 2, 3]
    assert two.tolist() == [2, 3, 4]
    assert three.size == 0


def test_traits_tell_neighbours_apart():
    """Two cells change places; one is twice as large, and all of them dim by a half."""
    before = Cells(np.array([[10.0, 10], [10, 18], [60, 60], [90, 20]]),
                   np.array([[7.0, 10], [8, 10], [7.5, 10], [7.2, 10]]))  # fmt: skip
    swapped = np.array([[10.0, 17], [10, 11], [60, 60], [90, 20]])
    after = Cells(swapped, before.traits - (0, 1))
    a, b = assign(before, after, REACH)
    assert b[np.argsort(a)].tolist() == [0, 1, 2, 3]
    blind = assign(plain(before.at), plain(after.at), REACH)
    assert blind[1][np.argsort(blind[0])].tolist() == [1, 0, 2, 3]
