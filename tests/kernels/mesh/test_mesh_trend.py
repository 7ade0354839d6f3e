import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.mesh.trend import linear_trend, slow_part


def test_jumps_are_no_drift():
    z = np.arange(100)
    jumps = np.where(z > 40, 8.0, 0.0) + np.where(z > 70, -5.0, 0.0)
    shift = np.stack([0.3 * z + jumps, -0.1 * z], axis=1)
    trend = linear_trend(z, shift)
    np.testing.assert_allclose(np.diff(trend, axis=0), [[0.3, -0.1]] * 99, atol=1e-12)


def test_missing_sections_do_not_tilt_the_trend():
    z = np.array([0, 1, 2, 5, 6, 9, 10])
    trend = linear_trend(z, np.stack([2.0 * z, 0.0 * z], axis=1))
    np.testing.assert_allclose(trend[:, 0], 2.0 * z)


def test_two_sections_have_no_trend():
    assert (linear_trend([0, 1], np.array([[0.0, 0.0], [9.0, 9.0]])) == 0).all()


@given(st.integers(1, 30), st.integers(3, 40), st.integers(0, 9))
def test_a_line_along_z_is_wholly_slow(window, count, seed):
    rng = np.random.default_rng(seed)
    z = np.sort(rng.choice(200, count, replace=False))
    line = z[:, None, None, None] * rng.normal(size=(2, 3, 4)) + rng.normal(size=(2, 3, 4))
    got = slow_part(z, line, z, window)
    lonely = [(np.abs(z - a) <= window).sum() < 2 for a in z]
    np.testing.assert_allclose(got[~np.array(lonely)], line[~np.array(lonely)], atol=1e-6)


def test_what_jumps_from_section_to_section_is_not_slow():
    rng = np.random.default_rng(0)
    warps = rng.normal(size=(300, 2, 2, 2))
    slow = slow_part(range(300), warps, range(300), 30)
    assert slow.std() < 0.25


def test_a_part_of_the_stack_gives_the_same():
    rng = np.random.default_rng(1)
    warps = rng.normal(size=(60, 2, 3, 3))
    whole = slow_part(range(60), warps, range(20, 25), 10)
    part = slow_part(range(9, 36), warps[9:36], range(20, 25), 10)
    np.testing.assert_allclose(part, whole, atol=1e-12)


def test_a_few_sections_that_jump_have_no_trend():
    rng = np.random.default_rng(3)
    shift = np.cumsum(rng.normal(0.5, 5.0, (8, 2)), axis=0)
    assert (np.diff(linear_trend(range(8), shift), axis=0) == 0).all()


def test_a_hair_moves_the_trend_by_no_more_than_a_hair():
    rng = np.random.default_rng(4)
    steps = np.where(rng.random((250, 2)) < 0.02, 6.0, rng.normal(0.2, 1.2, (250, 2)))
    hair = rng.uniform(-0.01, 0.01, steps.shape)
    slopes = [
        np.diff(linear_trend(range(251), np.cumsum(np.insert(s, 0, 0, axis=0), axis=0)), axis=0)[0]
        for s in (steps, steps + hair)
    ]
    assert np.abs(slopes[1] - slopes[0]).max() < 2e-3
    assert np.abs(slopes[0] - 0.2).max() < 2.5 * 1.2 / np.sqrt(250)
