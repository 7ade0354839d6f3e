import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.shading.gain import overlap_levels, solve_gains


def neighbours(side):
    index = np.arange(side * side).reshape(side, side)
    across = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=1)
    down = np.stack([index[:-1].ravel(), index[1:].ravel()], axis=1)
    return np.concatenate([across, down])


def seen(pairs, gain, offset, rng, noise=0.0):
    """Levels `(light - offset) / gain`, so that gain and offset are what corrects them."""
    light = np.sort(rng.uniform(60, 180, (len(pairs), 1, 2)), axis=2)
    levels = (light - offset[pairs][:, :, None]) / gain[pairs][:, :, None]
    return levels + rng.normal(0, noise, levels.shape)


def centred(values):
    return values - values.mean()


def test_known_gains_are_recovered():
    rng = np.random.default_rng(0)
    pairs, gain = neighbours(8), np.exp(rng.normal(0, 0.05, 64))
    levels = seen(pairs, gain, np.zeros(64), rng, noise=0.2)
    found = solve_gains(pairs, levels, np.ones(len(pairs)), count=64, gain_sigma=0.1)
    error = centred(np.log(found.gain)) - centred(np.log(gain))
    assert np.abs(error).max() < 0.004
    assert abs(np.log(found.gain).mean()) < 1e-6
    assert (found.offset == 0).all()


def test_known_gains_and_offsets_are_recovered():
    rng = np.random.default_rng(1)
    pairs = neighbours(7)
    gain, offset = np.exp(rng.normal(0, 0.05, 49)), rng.normal(0, 6, 49)
    levels = seen(pairs, gain, offset, rng, noise=0.05)
    found = solve_gains(
        pairs, levels, np.ones(len(pairs)), count=49, gain_sigma=0.1, offset_sigma=10.0
    )
    corrected = found.gain[pairs][:, :, None] * levels + found.offset[pairs][:, :, None]
    assert np.abs(corrected[:, 0] - corrected[:, 1]).max() < 0.5
    assert np.abs(levels[:, 0] - levels[:, 1]).max() > 10


def test_overlaps_that_changed_lose():
    rng = np.random.default_rng(2)
    pairs, gain = neighbours(8), np.exp(rng.normal(0, 0.05, 64))
    levels = seen(pairs, gain, np.zeros(64), rng, noise=0.1)
    wrong = rng.choice(len(pairs), 10, replace=False)
    levels[wrong, 0] *= 1.5
    found = solve_gains(pairs, levels, np.ones(len(pairs)), count=64, gain_sigma=0.1)
    error = centred(np.log(found.gain)) - centred(np.log(gain))
    assert np.abs(error).max() < 0.01
    assert found.weight[wrong].max() < 0.1
    assert np.delete(found.weight, wrong).min() > 0.1


def test_tiles_without_overlap_and_unknown_levels_are_left_alone():
    pairs = np.array([[0, 1], [1, 2]])
    levels = np.array([[[50.0, 100.0], [55.0, 110.0]], [[np.nan] * 2, [40.0, 60.0]]])
    found = solve_gains(pairs, levels, np.array([500.0, 0.0]), count=4, gain_sigma=0.1)
    assert found.gain[2:].tolist() == [1.0, 1.0]
    assert found.weight[1] == 0
    assert np.isclose(found.gain[0] / found.gain[1], 1.1, rtol=1e-3)
    assert np.isclose(found.gain[0] * found.gain[1], 1.0)
    nothing = solve_gains(pairs[:0], levels[:0], np.empty(0), count=3, gain_sigma=0.1)
    assert nothing.gain.tolist() == [1.0] * 3


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), offset_sigma=st.sampled_from([0.0, 5.0]))
def test_the_order_of_tiles_and_overlaps_has_no_influence(seed, offset_sigma):
    rng = np.random.default_rng(seed)
    pairs, gain = neighbours(4), np.exp(rng.normal(0, 0.1, 16))
    levels = seen(pairs, gain, rng.normal(0, 2, 16), rng, noise=0.5)
    pixels = rng.uniform(100, 1000, len(pairs))
    options = {"count": 16, "gain_sigma": 0.1, "offset_sigma": offset_sigma}
    first = solve_gains(pairs, levels, pixels, **options)
    tiles, rows = rng.permutation(16), rng.permutation(len(pairs))
    number = np.argsort(tiles)
    second = solve_gains(
        number[pairs[rows]][:, ::-1], levels[rows][:, ::-1], pixels[rows], **options
    )
    assert np.allclose(second.gain, first.gain[tiles], atol=1e-6)
    assert np.allclose(second.offset, first.offset[tiles], atol=1e-4)


def test_levels_of_an_overlap_with_an_object_that_moved():
    rng = np.random.default_rng(3)
    truth = rng.uniform(40, 160, (60, 500))
    a = 1.1 * truth + 4 + rng.normal(0, 6, truth.shape)
    b = truth + rng.normal(0, 6, truth.shape)
    b[10:20, 100:200] = 250
    a[:, :30] = np.nan
    mask = np.ones(truth.shape, bool)
    mask[:, -30:] = False
    b[:, -30:] = 1e6
    found = overlap_levels(a, b, mask)
    assert found.pixels == 60 * 440
    slope = (found.a[1] - found.a[0]) / (found.b[1] - found.b[0])
    assert abs(slope - 1.1) < 0.03
    assert np.abs(found.a - (1.1 * found.b + 4)).max() < 1.0


def test_too_few_pixels_are_no_measurement():
    found = overlap_levels(np.ones((3, 5)), np.ones((3, 5)))
    assert found.pixels == 0
    assert np.isnan(found.a).all()


def test_bad_requests_are_refused():
    levels = np.ones((1, 2, 2))
    with pytest.raises(ValueError, match="there are 1"):
        solve_gains(np.array([[0, 1]]), levels, np.ones(1), count=1, gain_sigma=0.1)
    with pytest.raises(ValueError, match="positive"):
        solve_gains(np.array([[0, 1]]), levels, np.ones(1), count=2, gain_sigma=0.0)
