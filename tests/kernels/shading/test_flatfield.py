import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from warpbeam.kernels.shading.flatfield import ShadingSamples

SHAPE = (256, 256)


def vignette(shape, depth, centre=(0.0, 0.0)):
    """1 in the centre, `1 - depth` in the corners if centred."""
    y, x = (np.linspace(-1, 1, n) - c for n, c in zip(shape, centre, strict=True))
    flat = 1 - depth * (y[:, None] ** 2 + x[None] ** 2) / 2
    return flat / flat.mean()


def tissue(count, shape, rng):
    """Textured tiles without an empty ground: blobs of two sizes on a slow drift, mean 130."""
    for _ in range(count):
        grey = np.full(shape, 130.0)
        for size, contrast in ((3, 25), (12, 20), (60, 6)):
            field = ndimage.gaussian_filter(rng.standard_normal(shape), size, mode="wrap")
            grey += contrast * field / field.std()
        yield np.clip(grey, 20, 250)


def cells(count, shape, rng):
    """Fluorescence: bright blobs on a dim ground of varying brightness."""
    for _ in range(count):
        spots = np.zeros(shape)
        at = rng.integers(0, shape, (10, 2))
        spots[at[:, 0], at[:, 1]] = rng.uniform(500, 5000, 10) * 80
        yield rng.uniform(60, 140) + ndimage.gaussian_filter(spots, 9, mode="wrap")


def estimated(contents, flat, rng, noise=12.0):
    samples = ShadingSamples(flat.shape)
    for number, content in enumerate(contents):
        tile = content * flat + noise * rng.standard_normal(flat.shape)
        samples.update(np.clip(np.rint(tile), 0, 65535).astype(np.uint16), f"tile {number}")
    return samples.estimate()


def seam_step(shading, flat):
    """The largest step between opposite edges that the correction leaves, of the mean."""
    left = flat / shading.flat
    left = left / left.mean()
    return max(np.abs(left[0] - left[-1]).max(), np.abs(left[:, 0] - left[:, -1]).max())


def test_no_seam_step_above_one_percent_with_64_tiles_of_tissue():
    rng = np.random.default_rng(0)
    flat = vignette(SHAPE, 0.3)
    shading = estimated(tissue(64, SHAPE, rng), flat, rng)
    assert seam_step(shading, flat) < 0.01
    assert np.abs(shading.flat / flat - 1).max() < 0.03
    assert np.isclose(shading.flat.mean(), 1, atol=1e-5)
    assert shading.dark == 0


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.2, -0.1)])
def test_fluorescence_with_bright_objects(centre):
    rng = np.random.default_rng(1)
    flat = vignette(SHAPE, 0.3, centre)
    shading = estimated(cells(48, SHAPE, rng), flat, rng, noise=5.0)
    assert np.abs(shading.flat / flat - 1).max() < 0.02
    assert seam_step(shading, flat) < 0.01


def test_few_tiles_never_print_their_content():
    """The estimate has no third difference to speak of: it is a plain bowl or nothing."""
    rng = np.random.default_rng(2)
    flat = vignette(SHAPE, 0.3)
    for count in (0, 1, 3, 7):
        shading = estimated(tissue(count, SHAPE, rng), flat, rng)
        bent = np.diff(shading.flat, n=3, axis=0)
        assert np.abs(bent).max() < 1e-5
        worse = np.abs(np.ones(SHAPE) / flat - 1).max()
        assert np.abs(shading.flat / flat - 1).max() < 1.2 * worse


def test_no_shading_gives_no_flat_field():
    rng = np.random.default_rng(3)
    shading = estimated(tissue(30, (160, 200), rng), np.ones((160, 200)), rng)
    assert np.abs(shading.flat - 1).max() < 0.02


def test_a_dark_level_is_told_from_light():
    rng = np.random.default_rng(4)
    flat = vignette(SHAPE, 0.5)
    contents = (np.full(SHAPE, level) for level in rng.uniform(50, 400, 40))
    samples = ShadingSamples(SHAPE)
    for number, content in enumerate(contents):
        samples.update(content * flat + 100 + 3 * rng.standard_normal(SHAPE), str(number))
    shading = samples.estimate(dark=None)
    assert abs(shading.dark - 100) < 5
    assert np.abs(shading.flat / flat - 1).max() < 0.02
    known = samples.estimate(dark=100.0)
    assert np.abs(known.flat / flat - 1).max() < 0.02


def test_unknown_pixels_do_not_count():
    rng = np.random.default_rng(5)
    flat = vignette((128, 160), 0.3)
    samples = ShadingSamples(flat.shape)
    for number in range(30):
        tile = 100 * flat + rng.standard_normal(flat.shape)
        tile[: rng.integers(0, 60)] = np.nan
        samples.update(tile, str(number))
    samples.update(np.full(flat.shape, np.nan), "nothing known")
    assert np.abs(samples.estimate().flat / flat - 1).max() < 0.01


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), keep=st.sampled_from([3, 10, 100]))
def test_order_grouping_and_repeats_change_not_a_bit(seed, keep):
    rng = np.random.default_rng(seed)
    shape = (40, 70)
    tiles = [100 * vignette(shape, 0.4) + rng.normal(0, 5, shape) for _ in range(12)]
    whole = ShadingSamples(shape, keep=keep)
    for number, tile in enumerate(tiles):
        whole.update(tile, str(number))
    parts = [ShadingSamples(shape, keep=keep) for _ in range(3)]
    for number in [*rng.permutation(12), *rng.integers(0, 12, 5)]:
        parts[rng.integers(3)].update(tiles[number], str(number))
    first, second, third = (parts[i] for i in rng.permutation(3))
    second.merge(third)
    first.merge(second)
    assert np.array_equal(first.estimate().flat, whole.estimate().flat)


def test_sizes_that_do_not_fit_are_refused():
    samples = ShadingSamples((8, 8))
    with pytest.raises(ValueError, match=r"\(8, 9\)"):
        samples.update(np.ones((8, 9)), "a")
    with pytest.raises(ValueError, match=r"\(9, 8\)"):
        samples.merge(ShadingSamples((9, 8)))
