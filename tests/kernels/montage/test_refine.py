import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.montage.refine import SIGMAS_PX, refine


def waves(shape, shift, seed, count=60, shortest_px=7.0):
    """A sum of plane waves, sampled exactly at `p + shift`; unit variance."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, len(shape)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    frequency = direction * rng.uniform(0.02, 1 / shortest_px, (count, 1))
    phase = rng.uniform(0, 2 * np.pi, count)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    image = np.zeros(shape)
    for f, p in zip(frequency, phase, strict=True):
        image += np.cos(
            2 * np.pi * sum(c * (a + s) for c, a, s in zip(f, axes, shift, strict=True)) + p
        )
    return image * np.sqrt(2 / count)


def measured(fixed, moving, start, *, fixed_mask=None, moving_mask=None, coarse_first=False):
    masks = [
        np.ones(image.shape, bool) if mask is None else mask
        for image, mask in ((fixed, fixed_mask), (moving, moving_mask))
    ]
    return refine(
        fixed.astype(np.float32),
        moving.astype(np.float32),
        *masks,
        start=start,
        sigmas=SIGMAS_PX,
        coarse_first=coarse_first,
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shift=st.tuples(*[st.floats(-9, 9)] * 2),
    gain=st.floats(0.3, 3),
    offset=st.floats(-500, 500),
)
def test_finds_the_true_shift_for_any_gain_and_offset(seed, shift, gain, offset):
    fixed = waves((96, 48), (0, 0), seed)
    moving = gain * waves((96, 48), shift, seed) + offset
    found = measured(fixed, moving, np.rint(shift))
    np.testing.assert_allclose(found.shift, shift, atol=2e-3)
    assert found.ncc > 0.999


def test_vignettes_of_both_patches_do_not_bias():
    y, x = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(0, 1, 50), indexing="ij")
    errors = []
    for seed in range(6):
        shade_a = 1 - 0.15 * y**2 - 0.2 * x
        shade_b = 1 - 0.15 * y**2 - 0.2 * (1 - x)
        fixed = (5 + waves((200, 50), (0, 0), seed)) * shade_a
        moving = (5 + waves((200, 50), (0.3, -0.4), seed)) * shade_b
        errors.append(measured(fixed, moving, (0, 0)).shift - [0.3, -0.4])
    assert np.abs(errors).max() < 0.005
    assert np.abs(np.mean(errors, axis=0)).max() < 0.002


@pytest.mark.parametrize("sigma", SIGMAS_PX)
def test_a_gain_that_rises_across_the_smoothing_is_no_shift(sigma):
    rise = 0.008 * (np.arange(60) - 29.5)
    fixed, moving = (waves((150, 60), (0, s), 6, shortest_px=12) for s in (0, 0.2))
    every = np.ones((150, 60), bool)
    found = refine(
        (fixed * (1 + rise)).astype(np.float32),
        (moving * (1 - rise)).astype(np.float32),
        every,
        every,
        start=(0, 0),
        sigmas=(sigma,),
        coarse_first=False,
    )
    np.testing.assert_allclose(found.shift, (0, 0.2), atol=2e-3)


def test_errors_agree_with_the_information():
    rng = np.random.default_rng(0)
    squared, errors = [], []
    for seed in range(60):
        shift = rng.uniform(-0.5, 0.5, 2)
        fixed = waves((128, 40), (0, 0), seed) + rng.normal(0, 1, (128, 40))
        moving = waves((128, 40), shift, seed) + rng.normal(0, 1, (128, 40))
        found = measured(fixed, moving, (0, 0))
        error = found.shift - shift
        errors.append(error)
        squared.append(error @ found.information @ error / 2)
    assert 0.6 < np.mean(squared) < 2.5
    # No pull to zero or away: the mean error is within 4 standard errors of nothing.
    assert np.abs(np.mean(errors, axis=0)).max() < 4 * np.std(errors) / np.sqrt(60)


def test_smoothing_follows_noise():
    rng = np.random.default_rng(1)
    sharp = [waves((128, 48), (0, s), 3, shortest_px=4) for s in (0, 0.3)]
    blurred = [waves((128, 48), (0, s), 3, shortest_px=25) for s in (0, 0.3)]
    noise = rng.normal(size=(2, 128, 48))
    little = measured(*(s + 0.02 * n for s, n in zip(sharp, noise, strict=True)), (0, 0))
    much = measured(*(s + n for s, n in zip(blurred, noise, strict=True)), (0, 0))
    assert little.sigma < much.sigma


def test_three_dimensions_and_masks():
    shift = (0.4, -2.3, 1.2)
    fixed, moving = waves((24, 40, 30), (0, 0, 0), 5), waves((24, 40, 30), shift, 5)
    mask = np.ones((24, 40, 30), bool)
    mask[:, 10:18, 12:20] = False
    fixed[~mask] = 1e3
    found = measured(fixed, moving, np.rint(shift), fixed_mask=mask)
    np.testing.assert_allclose(found.shift, shift, atol=5e-3)
    assert found.information.shape == (3, 3)


def test_stripes_leave_the_direction_along_them_open():
    y = np.arange(80)[:, None] + np.zeros((1, 60))
    rng = np.random.default_rng(4)
    fixed, moving = (np.sin((y + s) / 2.5) + 0.05 * rng.normal(size=y.shape) for s in (0, 0.25))
    found = measured(fixed, moving, (0, 0))
    assert found.shift[0] == pytest.approx(0.25, abs=0.02)
    assert found.information[1, 1] < 1e-2 * found.information[0, 0]


def test_coarse_first_reaches_further():
    fixed, moving = (waves((128, 60), (0, s), 8, shortest_px=5) for s in (0, 2.6))
    found = measured(fixed, moving, (0, 0), coarse_first=True)
    np.testing.assert_allclose(found.shift, (0, 2.6), atol=0.01)


def test_nothing_to_go_by_is_none():
    flat = np.zeros((40, 40))
    texture = waves((40, 40), (0, 0), 0)
    assert measured(flat, flat, (0, 0)) is None
    assert measured(flat, texture, (0, 0)) is None
    assert measured(texture, texture, (38, 0)) is None
    assert measured(texture, texture, (0, 0), fixed_mask=np.zeros((40, 40), bool)) is None


def test_ranks_must_agree():
    with pytest.raises(ValueError, match="ranks"):
        measured(np.zeros((8, 8)), np.zeros((8, 8)), (0, 0, 0))
