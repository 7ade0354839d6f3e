"""Properties of objects are those of scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure, morphology

from warpbeam.kernels.segment import perimeter
from warpbeam.kernels.segment.hull import hull_area
from warpbeam.kernels.segment.intensity import intensity_properties
from warpbeam.kernels.segment.regions import label_mask, regions_of
from warpbeam.kernels.segment.shape import shape_properties

NAMES = {
    "area": "area", "bbox-0": "bbox_y0", "bbox-1": "bbox_x0", "bbox-2": "bbox_y1",
    "bbox-3": "bbox_x1", "centroid-0": "centroid_y", "centroid-1": "centroid_x",
    "centroid_weighted-0": "centroid_weighted_y", "centroid_weighted-1": "centroid_weighted_x",
    "orientation": "orientation", "solidity": "solidity", "extent": "extent",
    "perimeter": "perimeter", "eccentricity": "eccentricity", "intensity_max": "intensity_max",
    "intensity_mean": "intensity_mean", "intensity_min": "intensity_min",
    "intensity_std": "intensity_std", "axis_major_length": "axis_major_length",
    "axis_minor_length": "axis_minor_length",
}  # fmt: skip


def blobs(seed, size=160, count=40, touching=False):
    """Random discs and bars; each a label of its own, over one another, where they touch."""
    rng = np.random.default_rng(seed)
    labels, (y, x) = np.zeros((size, size), np.int32), np.mgrid[:size, :size]
    for k in range(1, count + 1):
        (cy, cx), (a, b), turn = rng.uniform(0, size, 2), rng.uniform(1, 14, 2), rng.uniform(0, 3)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
        labels[(u / a) ** 2 + (v / b) ** 2 < 1] = k
    image = rng.integers(0, 65536, labels.shape).astype(np.uint16)
    return (measure.label(labels, background=0) if touching else labels > 0), image


def compare(labels, image):
    regions = regions_of(labels)
    found = {**shape_properties(regions), **intensity_properties(regions, image)}
    wanted = [name.partition("-")[0] for name in NAMES]
    expected = measure.regionprops_table(labels, image, properties=list(dict.fromkeys(wanted)))
    for name, mine in NAMES.items():
        np.testing.assert_allclose(found[mine], expected[name], rtol=1e-9, atol=0, err_msg=name)


@pytest.mark.parametrize("touching", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_all_properties_to_a_billionth(seed, touching):
    found, image = blobs(seed, touching=touching)
    labels = found if touching else measure.label(found)
    assert labels.max() > 5
    assert _meet(labels) == touching
    compare(labels, image)


def _meet(labels):
    return bool(((labels[1:] != labels[:-1]) & (labels[1:] > 0) & (labels[:-1] > 0)).any())


def test_labels_in_several_pieces_and_speckles():
    rng = np.random.default_rng(5)
    labels = np.where(rng.random((40, 50)) < 0.1, rng.integers(1, 6, (40, 50)), 0)
    compare(labels, rng.integers(1, 200, labels.shape).astype(np.uint8))


@pytest.mark.parametrize("size", [1, 200, 3000])
def test_perimeters_on_canvases_of_any_size(size, monkeypatch):
    labels = blobs(1, touching=True)[0]
    monkeypatch.setattr(perimeter, "_CANVAS_BYTES", size)
    expected = measure.regionprops_table(labels, properties=["perimeter"])["perimeter"]
    np.testing.assert_allclose(perimeter.perimeter(regions_of(labels)), expected, rtol=1e-9)


@settings(max_examples=60)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_hulls_are_those_of_scikit_image(mask):
    regions = label_mask(mask)
    expected = [
        morphology.convex_hull_image(np.pad(regions.image() == k, 1)).sum()
        for k in range(1, regions.count + 1)
    ]
    np.testing.assert_array_equal(hull_area(regions), expected)


@pytest.mark.parametrize("radius", [1, 2.5, 7, 20.3])
def test_a_disc_has_its_own_moments(radius):
    y, x = np.mgrid[-30:31, -30:31]
    found = shape_properties(label_mask(y * y + x * x <= radius**2))
    assert found["centroid_y"] == found["centroid_x"] == 30
    assert found["eccentricity"] == pytest.approx(0, abs=1e-7)
    if radius > 5:
        assert found["axis_major_length"][0] == pytest.approx(2 * radius, rel=0.02)
        assert found["perimeter"][0] == pytest.approx(2 * np.pi * radius, rel=0.06)


def test_a_label_without_pixels_is_not_known():
    labels = np.zeros((5, 5), int)
    labels[1:3, 1:3] = 2
    found = shape_properties(regions_of(labels))
    assert found["area"].tolist() == [0, 4]
    assert np.isnan([found[k][0] for k in ("centroid_y", "extent", "solidity")]).all()
    grey = intensity_properties(regions_of(labels), np.ones((5, 5), np.float32))
    assert np.isnan(grey["intensity_max"][0])
    assert grey["intensity_max"][1] == 1


@given(st.integers(0, 3))
def test_grey_values_of_any_type(seed):
    rng = np.random.default_rng(seed)
    labels = measure.label(rng.random((20, 20)) < 0.5)
    image = rng.normal(0, 3, (20, 20)).astype(np.float32)
    found = intensity_properties(regions_of(labels), image)
    for region in measure.regionprops(labels, image):
        values = image[labels == region.label].astype(float)
        assert found["intensity_mean"][region.label - 1] == pytest.approx(values.mean(), rel=1e-9)
        assert found["intensity_std"][region.label - 1] == pytest.approx(values.std(), abs=1e-9)
