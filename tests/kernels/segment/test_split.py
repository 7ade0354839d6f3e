"""Touching objects, spots, and measures of agreement."""

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from warpbeam.kernels.segment.metrics import Matches, agreement, matches
from warpbeam.kernels.segment.plate import ObjectSettings, find_objects
from warpbeam.kernels.segment.puncta import PunctaSettings, difference_of_gaussians, find_puncta
from warpbeam.kernels.segment.regions import label_mask, regions_of
from warpbeam.kernels.segment.split import split_touching
from warpbeam.kernels.segment.threshold import ThresholdSettings


def discs(shape, *circles):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum((y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in circles) > 0


def split(mask, neck=0.8):
    return split_touching(label_mask(mask), neck=neck, smoothing_px=1.0)


def test_two_touching_discs_are_cut_between_them():
    parts = split(discs((60, 90), (30, 30, 16), (30, 58, 16)))
    assert parts.count == 2
    image = parts.image()
    assert set(np.unique(image[:, :43])) == {0, 1}
    assert set(np.unique(image[:, 46:])) == {0, 2}


def test_the_cut_is_the_same_at_any_magnification():
    for k in (1, 2, 4):
        assert split(discs((60 * k, 90 * k), (30 * k, 30 * k, 12 * k), (30 * k, 50 * k, 12 * k))
                     ).count == 2  # fmt: skip


def test_a_single_shape_stays_whole():
    assert split(discs((60, 60), (30, 30, 20))).count == 1
    bar = np.zeros((40, 100), bool)
    bar[12:28, 10:90] = True
    assert split(bar).count == 1
    y, x = np.mgrid[:60, :80]
    assert split((y - 30) ** 2 / 12**2 + (x - 40) ** 2 / 30**2 < 1).count == 1


def test_a_chain_of_discs_and_what_neck_means():
    chain = discs((40, 150), *((20, 20 + 22 * k, 13) for k in range(5)))
    assert split(chain).count == 5
    assert split(chain, neck=0.1).count == 1  # necks are half as wide as the discs


def test_objects_elsewhere_keep_their_pixels():
    mask = discs((60, 160), (30, 30, 16), (30, 58, 16), (30, 120, 15))
    assert split(mask).count == 3
    np.testing.assert_array_equal(split(mask).image() > 0, mask)


OBJECTS = ObjectSettings(
    ThresholdSettings("otsu", 3.5, 0.0, 51, 0.2), 0.0, fill_holes=False, neck=0.0,
    split_smoothing_px=1.0, smallest=50, largest=2000, clear_border=False, apart_px=0.0,
)  # fmt: skip


def test_objects_of_an_image():
    from dataclasses import replace

    mask = discs((120, 200), (40, 40, 14), (40, 66, 14), (100, 100, 10), (60, 199, 12), (90, 30, 3))
    mask[98:102, 98:102] = False
    image = np.where(mask, 900, 100).astype(np.uint16)
    assert find_objects(image, OBJECTS).count == 3  # the small one is left out
    assert find_objects(image, replace(OBJECTS, neck=0.8)).count == 4
    assert find_objects(image, replace(OBJECTS, clear_border=True)).count == 2
    assert find_objects(image, replace(OBJECTS, neck=0.8, apart_px=30.0)).count == 2
    filled = find_objects(image, replace(OBJECTS, fill_holes=True))
    assert filled.image()[100, 100] > 0
    assert find_objects(np.zeros((50, 50), np.uint16), OBJECTS).count == 0


def test_spots_belong_to_the_objects_that_they_lie_in():
    cells = regions_of(np.repeat(np.array([[1, 2]]), 40, 1).repeat(60, 0))
    image = np.full((60, 80), 100, np.uint16)
    for y, x in ((10, 10), (30, 30), (50, 20), (30, 60)):
        image[y - 1 : y + 2, x - 1 : x + 2] = 1000
    image[10, 39:41] = 5000  # across both cells: one spot in each
    spots, table = find_puncta(cells, image, PunctaSettings(1.0, 3.0, 60.0, 0, 500))
    assert spots.count == 6
    assert np.bincount(table["cell"]).tolist() == [0, 4, 2]
    inside = table["centroid_x"] < 40
    np.testing.assert_array_equal(table["cell"], np.where(inside, 1, 2))
    np.testing.assert_array_equal(table["area"], spots.area)
    bright = difference_of_gaussians(image, 1.0, 3.0) > 60
    assert spots.area.sum() == bright.sum()


def test_agreement_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 5, (30, 30)), rng.integers(1, 7, (30, 30))
    known = truth > 0
    error = skimage_metrics.adapted_rand_error(truth[known], found[known])[0]
    split_, merge = skimage_metrics.variation_of_information(truth[known], found[known])
    large = found.astype(np.uint64) << np.uint64(32)
    assert agreement(truth, large) == pytest.approx((error, split_, merge))
    assert agreement(truth, truth) == pytest.approx((0, 0, 0), abs=1e-12)
    over = truth * 2 + rng.integers(0, 2, truth.shape) * (truth > 0)
    assert agreement(truth, over).split > 0.9
    assert agreement(truth, over).merge == pytest.approx(0, abs=1e-12)


def test_matches_of_objects():
    truth = np.zeros((10, 30), int)
    truth[:, 0:10], truth[:, 10:20] = 1, 2
    found = np.zeros_like(truth)
    found[:, 0:9], found[:, 9:16], found[:, 22:28] = 5, 6, 9
    assert matches(truth, found, 0.5) == Matches(2, 2, 3)
    assert matches(truth, found, 0.6) == Matches(1, 2, 3)
    assert matches(truth, found, 0.05) == Matches(2, 2, 3)
    assert (matches(truth, truth, 0.5) + Matches(0, 1, 0)).f1 == pytest.approx(4 / 5)
    assert matches(np.zeros_like(truth), np.zeros_like(truth), 0.5).f1 == 1
