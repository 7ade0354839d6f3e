import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.flow.contrast import evened


def vignetted(seed=0, shape=(160, 200)):
    """Texture whose mean and contrast fall by two thirds from left to right."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    fall = np.linspace(1, 1 / 3, shape[1])
    return ((100 + 30 * texture / texture.std()) * fall).astype(np.float32)


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_contrast_is_the_same_everywhere(how):
    image = vignetted()
    before = image[:, :40].std() / image[:, -40:].std()
    out = evened(image, how, 40)
    after = out[:, :40].std() / out[:, -40:].std()
    assert before > 2
    assert 0.75 < after < 1.33
    assert abs(out[:, :40].mean() - out[:, -40:].mean()) < 0.5 * out.std()


@pytest.mark.parametrize("how", ["local", "clahe", "none"])
def test_what_is_not_known_stays_so_and_spoils_nothing(how):
    image = vignetted()
    image[20:60, 30:80] = np.nan
    out = evened(image, how, 40)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(image))


def test_local_contrast_by_hand():
    image = vignetted()
    sigma, radius = 10.0, 35
    x = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (x / sigma) ** 2)

    def smooth(a):
        for axis in range(2):
            a = ndimage.convolve1d(a, taps, axis=axis, mode="constant")
        return a

    weight = smooth(np.ones(image.shape))
    apart = image - smooth(image.astype(float)) / weight
    expected = apart / np.sqrt(smooth(apart**2) / weight)
    np.testing.assert_allclose(evened(image, "local", 20), expected, atol=2e-3)


def test_noise_is_not_blown_up():
    image = vignetted()
    image[:, :60] = 50 + 1e-3 * np.random.default_rng(1).normal(size=(160, 60))
    assert evened(image, "local", 20)[60:100, 5:25].std() < 0.1


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_nothing_known_is_nothing_known(how):
    assert np.isnan(evened(np.full((20, 20), np.nan, np.float32), how, 8)).all()
