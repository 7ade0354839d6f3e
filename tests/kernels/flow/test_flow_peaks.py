"""Peaks of correlation surfaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.flow import peaks as module
from warpbeam.kernels.flow.peaks import solve_small

find_peaks = jax.jit(module.find_peaks, static_argnames=("min_distance", "sharpness_radius"))


def peaks(surface, distance=2, radius=(2, 3)):
    return find_peaks(
        jnp.asarray(surface, jnp.float32),
        min_distance=(distance,) * (np.ndim(surface) - 1),
        sharpness_radius=radius,
    )


def test_sharpness_of_a_cusp():
    """SOFIMA's own case: 10 exp(-r / 4) at (20, 28); one peak, so no second."""
    y, x = np.mgrid[:50, :50]
    surface = 10 * np.exp(-np.sqrt(2 * (28 - x) ** 2 + (20 - y) ** 2) / 4)
    found = peaks(surface[None])
    np.testing.assert_allclose(np.asarray(found.position[0]) - 25, (-5, 3), atol=1e-5)
    least = surface[18:23, 25:32].min()
    np.testing.assert_allclose(found.sharpness[0], 10 / least, rtol=1e-5)
    assert np.isinf(found.ratio[0])


@settings(max_examples=20, deadline=None)
@given(y=st.floats(-0.45, 0.45), x=st.floats(-0.45, 0.45), tilt=st.floats(-0.3, 0.3))
def test_finds_the_top_of_a_quadric_exactly(y, x, tilt):
    gy, gx = np.mgrid[:11, :11] - 5.0
    gy, gx = gy - y, gx - x
    surface = 1 - 0.02 * (gy**2 + 1.5 * gx**2 + 2 * tilt * gy * gx)
    found = peaks(surface[None])
    np.testing.assert_allclose(found.position[0], (5 + y, 5 + x), atol=2e-3)


def test_ratio_ignores_shoulders_of_the_first_peak():
    surface = np.zeros((1, 21, 21))
    surface[0, 10, 10] = 1
    surface[0, 10, 12] = 0.9
    surface[0, 10, 4] = 0.5
    assert peaks(surface).ratio[0] == 2
    assert peaks(surface, distance=1).ratio[0] == pytest.approx(1 / 0.9)


def test_three_dimensions():
    z, y, x = np.mgrid[:9, :9, :9]
    surface = np.exp(-((z - 3.2) ** 2 + (y - 4.9) ** 2 + (x - 5.1) ** 2) / 20)
    found = peaks(surface[None], radius=(2, 2, 2))
    np.testing.assert_allclose(found.position[0], (3.2, 4.9, 5.1), atol=0.03)


@pytest.mark.parametrize("case", ["nan", "rim", "negative"])
def test_no_peak(case):
    surface = np.full((1, 9, 9), np.nan)
    if case == "rim":
        surface[0] = np.arange(9) / 9
    elif case == "negative":
        y, x = np.mgrid[:9, :9] - 4
        surface[0] = -0.5 - 0.01 * (y**2 + x**2)
    assert np.isnan(peaks(surface).position).all()


def test_unknown_neighbours_leave_the_peak_on_its_voxel():
    surface = np.full((1, 9, 9), 0.1)
    surface[0, 4, 4], surface[0, 4, 5], surface[0, 3, 3] = 1, 0.9, np.nan
    np.testing.assert_array_equal(peaks(surface).position[0], (4, 4))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_solves_positive_definite_systems_and_says_which_are_not(rank):
    rng = np.random.default_rng(rank)
    root = rng.normal(size=(20, rank, rank)) + 2 * np.eye(rank)
    matrix = root @ root.swapaxes(1, 2)
    matrix[7] *= -1
    right = rng.normal(size=(20, rank))
    got, good = solve_small(jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32))
    expected = np.linalg.solve(matrix, right[..., None])[..., 0]
    expected[7] = 0
    assert np.flatnonzero(~np.asarray(good)).tolist() == [7]
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
