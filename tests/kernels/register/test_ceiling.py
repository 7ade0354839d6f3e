import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.register.ceiling import alike, ceiling, noise_variance, reliability


def texture(shape, seed=0, sigma=2.5):
    rng = np.random.default_rng(seed)
    made = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return (made / made.std()).astype(np.float32)


def noisy(clean, deviation, seed):
    rng = np.random.default_rng(seed)
    return (clean + rng.normal(0, deviation, clean.shape)).astype(np.float32)


@pytest.mark.parametrize("deviation", [0.2, 0.5, 1.0])
def test_the_variance_of_noise_is_found(deviation):
    found = noise_variance(noisy(texture((40, 60, 60)), deviation, 1))
    np.testing.assert_allclose(found, deviation**2, rtol=0.15)


def test_smooth_volumes_have_none():
    assert noise_variance(texture((30, 40, 40))) < 1e-3
    assert reliability(texture((30, 40, 40)), (16.0,) * 3) > 0.995


def test_an_axis_with_gaps_does_not_count_as_noise():
    """Every sixth plane of a texture: neighbours along z have little in common."""
    assert noise_variance(texture((90, 60, 60))[::6]) < 0.01


@pytest.mark.parametrize("noise", [(0.3, 0.3), (1.0, 0.2), (1.5, 1.5)])
def test_the_ceiling_is_the_correlation_of_the_truth(noise):
    clean = texture((48, 64, 64))
    fixed, moving = noisy(clean, noise[0], 1), noisy(clean, noise[1], 2)
    smooth = [ndimage.gaussian_filter(v, 1.0, truncate=2.0) for v in (fixed, moving)]
    blocks = [s.reshape(3, 16, 4, 16, 4, 16).transpose(0, 2, 4, 1, 3, 5).reshape(48, -1)
              for s in smooth]  # fmt: skip
    truth = np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(*blocks, strict=True)])
    np.testing.assert_allclose(alike(fixed, moving, (16.0,) * 3), truth, atol=0.01)
    np.testing.assert_allclose(ceiling(fixed, moving, (16.0,) * 3), truth, atol=0.03)


def test_unknown_voxels_do_not_count():
    volume = noisy(texture((40, 60, 60)), 0.5, 1)
    holed = volume.copy()
    holed[:, :25] = np.nan
    np.testing.assert_allclose(noise_variance(holed), noise_variance(volume), rtol=0.1)
    np.testing.assert_allclose(
        reliability(holed, (16.0,) * 3), reliability(volume, (16.0,) * 3), atol=0.03
    )
    assert np.isnan(ceiling(np.full((20, 20, 20), np.nan, np.float32), volume, (16.0,) * 3))
