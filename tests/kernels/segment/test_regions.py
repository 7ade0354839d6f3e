"""Runs, labels and renumbering."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from warpbeam.kernels.segment.filters import apart, fill_holes, off_border, within_area
from warpbeam.kernels.segment.regions import (
    connected,
    label_mask,
    label_pieces,
    numbered,
    regions_of,
)

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
masks = hnp.arrays(bool, shapes)


@given(masks, st.sampled_from([4, 8]))
def test_labels_are_those_of_scikit_image(mask, connectivity):
    expected = measure.label(mask, connectivity=connectivity // 4)
    np.testing.assert_array_equal(label_mask(mask, connectivity).image(), expected)


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 3)), st.sampled_from([4, 8]))
def test_pieces_of_labels_are_those_of_scikit_image(values, connectivity):
    pieces, value = label_pieces(values, connectivity)
    expected = measure.label(values, connectivity=connectivity // 4, background=0)
    np.testing.assert_array_equal(pieces.image(), expected)
    np.testing.assert_array_equal(np.append(0, value)[pieces.image()], values)


@given(hnp.arrays(np.int32, shapes, elements=st.integers(0, 5)))
def test_a_label_image_comes_back_from_its_runs(labels):
    regions = regions_of(labels)
    np.testing.assert_array_equal(regions.image(), labels)
    np.testing.assert_array_equal(regions.area, np.bincount(labels.ravel(), minlength=6)[
        1 : regions.count + 1])  # fmt: skip
    np.testing.assert_array_equal(regions.index, np.flatnonzero(labels))


def test_no_label_wraps_at_65535():
    mask = np.zeros((600, 600), bool)
    mask[::2, ::2] = True  # 90000 single pixels
    labels = label_mask(mask).image()
    assert labels.dtype == np.uint32
    assert labels.max() == 90_000
    assert np.unique(labels).size == 90_001


def test_kept_labels_are_numbered_without_gaps():
    labels = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 4, 4]])
    kept = regions_of(labels).keep(np.array([True, False, True, True]))
    np.testing.assert_array_equal(kept.image(), [[1, 1, 0, 0], [0, 0, 0, 0], [2, 0, 3, 3]])


def test_bounds_of_the_area_are_strict():
    labels = np.repeat(np.arange(1, 5), [2, 3, 4, 5])[None]
    np.testing.assert_array_equal(within_area(regions_of(labels), 2, 5), [False, True, True, False])


@given(masks)
def test_objects_on_the_border_are_found(mask):
    regions = label_mask(mask)
    labels = regions.image()
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    expected = ~np.isin(np.arange(1, regions.count + 1), edge)
    np.testing.assert_array_equal(off_border(regions), expected)


@given(masks)
def test_holes_are_filled_as_in_scipy(mask):
    from scipy import ndimage

    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_both_of_a_close_pair_go():
    centroids = np.array([[0, 0], [0, 3], [10, 10], [10, 20.0]])
    np.testing.assert_array_equal(apart(centroids, 5.0), [False, False, True, True])
    assert apart(np.zeros((0, 2)), 5.0).size == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_components_are_numbered_by_their_first_nodes(edges):
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(10))
    graph.add_edges_from(edges)
    expected = np.zeros(10, int)
    for k, nodes in enumerate(sorted(nx.connected_components(graph), key=min)):
        expected[list(nodes)] = k
    a, b = np.array(edges, int).reshape(-1, 2).T
    np.testing.assert_array_equal(connected(a, b, 10), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_an_empty_mask_has_no_objects(shape):
    regions = label_mask(np.zeros(shape, bool))
    assert regions.count == 0
    assert not regions.image().any()


@given(hnp.arrays(np.int32, shapes, elements=st.integers(0, 9)))
def test_labels_are_numbered_by_their_first_pixels(labels):
    order = dict.fromkeys(labels[labels > 0].tolist())
    wanted = {0: 0} | {label: number for number, label in enumerate(order, start=1)}
    regions = numbered(labels)
    np.testing.assert_array_equal(regions.image(), np.vectorize(wanted.get, [int])(labels))
    assert regions.count == len(order)
