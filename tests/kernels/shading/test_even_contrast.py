import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import evened, grey_range, support


def vignetted(seed=0, shape=(160, 200)):
    """Texture whose mean and contrast fall by two thirds from left to right."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    fall = np.linspace(1, 1 / 3, shape[1])
    return ((100 + 30 * texture / texture.std()) * fall).astype(np.float32)


@pytest.mark.parametrize(("how", "most"), [("local", 1.33), ("clahe", 1.7)])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_contrast_is_the_same_everywhere(how, most, whole_numbers):
    """As far as its limit lets the histograms become flat."""
    image = np.rint(vignetted()) if whole_numbers else vignetted()
    before = image[:, :40].std() / image[:, -40:].std()
    out = evened(image, how, 40, grey_range(image))
    after = out[:, :40].std() / out[:, -40:].std()
    assert before > 2
    assert 0.75 < after < most
    assert abs(out[:, :40].mean() - out[:, -40:].mean()) < 0.7 * out.std()


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_the_range_stays(how):
    image = vignetted()
    low, high = grey_range(image)
    out = evened(image, how, 40, (low, high))
    assert low <= out.min() < low + (high - low) / 4
    assert high - (high - low) / 4 < out.max() <= high


@pytest.mark.parametrize("how", ["local", "clahe", "none"])
def test_what_is_not_known_stays_so_and_spoils_nothing(how):
    image = vignetted()
    image[20:60, 30:80] = np.nan
    out = evened(image, how, 40, (0.0, 255.0))
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
    deviations = apart / np.sqrt(smooth(apart**2) / weight)
    expected = np.clip(100 + deviations * 200 / 6, 0, 200)
    np.testing.assert_allclose(evened(image, "local", 40, (0.0, 200.0)), expected, atol=0.05)


def test_histograms_of_tiles_by_hand():
    """At the middle of a tile nothing is mixed in: the clipped and summed counts of the tile."""
    image = np.rint(vignetted(shape=(96, 128))).astype(np.float32)
    out = evened(image, "clahe", 32, (0.0, 255.0))
    tile = image[32:64, 64:96].astype(int)
    count = np.bincount(tile.ravel(), minlength=256)
    most = 3 * tile.size // 256
    above = np.maximum(count - most, 0).sum()
    clipped = np.minimum(count, most) + above // 256
    mapped = np.cumsum(clipped) * 255 / tile.size
    # what is left over, fewer than one a value, is spread as the library likes
    assert abs(out[48, 80] - mapped[int(image[48, 80])]) < 255 * 256 / tile.size


@settings(max_examples=40, deadline=None)
@given(
    how=st.sampled_from(["none", "local", "clahe"]),
    size=st.sampled_from([16, 24, 40, 90]),
    corner=st.tuples(st.integers(0, 150), st.integers(0, 190)),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    hole=st.booleans(),
)
def test_a_part_comes_out_as_in_the_whole(how, size, corner, shape, hole):
    image = np.rint(vignetted())
    if hole:
        image[40:70, 90:130] = np.nan
    grey, extent = (10.0, 190.0), Box.of_shape(image.shape)
    whole = evened(image, how, size, grey)
    box = Box.of_shape(shape, corner) & extent
    around = support(box, how, size) & extent
    part = evened(image[around.slices], how, size, grey, around.start)[box.slices_in(around)]
    # a value of 256 where a share is rounded; float32 sums in another order
    most = {"none": 0, "local": 0.02, "clahe": 1.01 * (grey[1] - grey[0]) / 255}
    np.testing.assert_allclose(part, whole[box.slices], atol=most[how])


def test_noise_is_not_blown_up():
    image = vignetted()
    image[:, :60] = 50 + 1e-3 * np.random.default_rng(1).normal(size=(160, 60))
    assert evened(image, "local", 40, (0.0, 200.0))[60:100, 5:25].std() < 0.1


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_nothing_known_is_nothing_known(how):
    assert np.isnan(evened(np.full((20, 20), np.nan, np.float32), how, 8, (0.0, 1.0))).all()


def test_range_holds_nearly_all():
    values = np.linspace(0, 1000, 100_001, dtype=np.float32)
    low, high = grey_range(np.concatenate([values, np.array([np.nan, 1e6], np.float32)]))
    np.testing.assert_allclose((low, high), (1 - 99.8, 999 + 99.8), atol=0.1)


@pytest.mark.parametrize("sample", [np.full(9, 7.0), np.zeros(4), np.full(3, np.nan)])
def test_range_of_what_has_none_is_not_empty(sample):
    low, high = grey_range(sample.astype(np.float32))
    assert low < high
