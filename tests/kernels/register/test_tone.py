"""Grey values along a curve: known curves are found again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.register.tone import Tone, tone_between

RNG = np.random.default_rng(0)
GREY = RNG.gamma(2.0, 100.0, 50_000)


@pytest.mark.parametrize(
    "curve", [lambda g: 3 * g + 20, lambda g: g**0.7, lambda g: np.log1p(g), np.sqrt]
)
def test_a_curve_is_found_again(curve):
    tone = tone_between(GREY, RNG.permutation(curve(GREY)))
    inner = (np.quantile(GREY, 0.01) < GREY) & (np.quantile(GREY, 0.99) > GREY)
    back = tone(curve(GREY).astype(np.float32))
    assert np.abs(back - GREY)[inner].max() < 0.02 * GREY.std()


@given(st.integers(0, 10_000), st.integers(2, 300))
def test_it_never_falls(seed, levels):
    rng = np.random.default_rng(seed)
    fixed, moving = rng.integers(0, levels, 2000), rng.integers(0, 9, 3000)
    tone = tone_between(fixed.astype(float), moving.astype(float))
    values = np.linspace(-20, 20, 401).astype(np.float32)
    assert (np.diff(tone(values)) >= -1e-4).all()


def test_beyond_the_knots_it_goes_on_straight():
    tone = Tone((1.0, 3.0), (10.0, 20.0), 5.0)
    values = np.array([0.0, 1.0, 2.0, 3.0, 5.0, np.nan], np.float32)
    np.testing.assert_allclose(tone(values), [5.0, 10.0, 15.0, 20.0, 30.0, np.nan])


def test_a_plateau_becomes_its_mean():
    """A detector that cuts off: half of the voxels are 0 there and spread here."""
    grey = np.arange(10_000.0)
    tone = tone_between(grey, np.maximum(grey - 5000, 0))
    assert tone(np.zeros(1, np.float32))[0] == pytest.approx(2500, rel=0.1)
    assert tone(np.full(1, 4000, np.float32))[0] == pytest.approx(9000, rel=0.01)


@pytest.mark.parametrize("values", [np.zeros(5000), np.arange(10.0), np.full(5000, np.nan)])
def test_too_little_gives_no_curve(values):
    assert tone_between(GREY, values) == Tone() == tone_between(values, GREY)
    np.testing.assert_array_equal(Tone()(np.array([3.0, np.nan], np.float32)), [3.0, np.nan])
