"""Thresholds are those of scikit-image, to the bit, from one histogram."""

import numpy as np
import pytest
from skimage import data, filters

from warpbeam.kernels.segment import threshold
from warpbeam.kernels.segment.background import correct, median_image, smooth
from warpbeam.kernels.segment.threshold import ThresholdSettings, foreground, global_threshold

OF_SKIMAGE = ("mean", "minimum", "yen", "li", "isodata", "otsu", "triangle")


def settings(method, **changes):
    given = {"sd_factor": 3.5, "manual": 100.0, "block_px": 15, "sauvola_k": 0.2} | changes
    return ThresholdSettings(method, **given)


def images():
    rng = np.random.default_rng(0)
    cells = rng.normal(600, 60, (200, 210))
    cells[40:90, 50:120] += 1500
    yield "16 bit", np.clip(cells, 0, 65535).astype(np.uint16)
    yield "8 bit", (np.clip(cells, 0, 2550) / 10).astype(np.uint8)
    yield "photograph", data.camera()
    yield "coins", data.coins()
    dark = rng.normal(400, 60, 4000)
    yield "wide", np.r_[dark, rng.normal(1200, 60, 1000)].astype(np.uint16).reshape(50, 100)
    yield "float", cells.astype(np.float32)


@pytest.mark.parametrize("method", OF_SKIMAGE)
@pytest.mark.parametrize(("name", "image"), images())
def test_thresholds_equal_scikit_image(method, name, image):
    try:
        expected = getattr(filters, f"threshold_{method}")(image)
    except RuntimeError:
        with pytest.raises(ValueError, match="finds no threshold"):
            global_threshold(image, settings(method))
        return
    assert global_threshold(image, settings(method)) == float(expected)
    np.testing.assert_array_equal(foreground(image, settings(method)), image > expected)


def test_methods_per_pixel_equal_scikit_image():
    image = data.coins()
    np.testing.assert_array_equal(
        foreground(image, settings("local")), image > filters.threshold_local(image, 15)
    )
    np.testing.assert_array_equal(
        foreground(image, settings("sauvola")), image > filters.threshold_sauvola(image, 15, k=0.2)
    )
    both = foreground(image, settings("local", floor="otsu"))
    expected = (image > filters.threshold_local(image, 15)) & (
        image > filters.threshold_otsu(image)
    )
    np.testing.assert_array_equal(both, expected)


def test_deviations_above_the_mean():
    image = next(images())[1]
    expected = int(image.mean() + 2.5 * image.std())
    assert global_threshold(image, settings("sd_from_mean", sd_factor=2.5)) == expected


@pytest.mark.parametrize("method", [m for m in threshold.METHODS if m != "manual"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_of_one_grey_value_has_no_objects(method, dtype):
    for grey in (0, 7):
        image = np.full((40, 40), grey, dtype)
        assert not foreground(image, settings(method, floor="otsu")).any()


def test_a_manual_threshold_beyond_the_type():
    image = np.full((3, 3), 255, np.uint8)
    assert not foreground(image, settings("manual", manual=300.0)).any()
    assert foreground(image, settings("manual", manual=254.9)).all()
    assert foreground(image, settings("manual", manual=-1.0)).all() == (image > 0).all()


def test_the_histogram_counts_large_images_exactly(monkeypatch):
    monkeypatch.setattr(threshold, "_MOST_COUNTED", 1000)
    image = np.random.default_rng(1).integers(3, 9, (77, 130)).astype(np.uint16)
    counts, greys = threshold.histogram(image)
    np.testing.assert_array_equal(counts, np.bincount(image.ravel())[3:])
    np.testing.assert_array_equal(greys, np.arange(3, 9))


def test_the_brightest_values_of_any_type_stay_bright():
    for dtype in ("uint8", "uint16", "int32", "uint32"):
        bright = np.full((32, 32), np.iinfo(dtype).max, dtype)
        assert (smooth(bright, 2.0) > 0.99 * np.iinfo(dtype).max).all()
        shade = np.ones((32, 32), np.float32)
        shade[:16] = 0.5
        assert (correct(bright, shade, "divide")[:16] > 0.99 * np.iinfo(dtype).max).all()


def test_backgrounds_are_medians_and_go():
    rng = np.random.default_rng(2)
    shade = np.linspace(100, 300, 30, dtype=np.float32)[None].repeat(20, 0)
    stack = [rng.normal(shade, 1).astype(np.uint16) for _ in range(5)]
    found = median_image(stack)
    np.testing.assert_array_equal(found, np.median(stack, axis=0))
    image = (shade + 50).astype(np.uint16)
    np.testing.assert_allclose(correct(image, shade, "subtract"), 50, atol=1)
    flat = correct((2 * shade).astype(np.uint16), shade, "divide")
    np.testing.assert_allclose(flat, 400, atol=4)
    assert flat.dtype == np.uint16
    assert correct(image, None, "subtract") is image
    assert correct(np.zeros((20, 30), np.uint8), shade, "subtract").max() == 0


def test_smoothing_is_that_of_scikit_image():
    image = data.camera()
    expected = filters.gaussian(image, 2, preserve_range=True, mode="reflect")
    assert np.abs(smooth(image, 2.0) - expected).max() <= 0.6
    assert smooth(image, 0.0) is image
