"""What is object in a volume: halos are wide enough, touching balls are cut, cuts are matched."""

import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.segment.solid import (
    BasinSettings,
    alike,
    basins,
    foreground,
    numbered_inside,
    smooth,
    smoothing_halo,
)

BASINS = BasinSettings((1.0, 1.0, 1.0), 1.0, False)


def balls(shape, centres, radius, voxel=(1.0, 1.0, 1.0)):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * voxel
    away = [np.linalg.norm(grid - np.multiply(c, voxel), axis=-1) for c in centres]
    owner = np.argmin(away, axis=0) + 1
    return np.where(np.min(away, axis=0) <= radius, owner, 0)


@pytest.mark.parametrize("sigma", [(0.0, 0.7, 1.5), (2.0, 0.3, 0.0)])
def test_smoothed_blocks_are_those_of_the_smoothed_volume(sigma):
    image = np.random.default_rng(0).integers(0, 60_000, (13, 22, 31)).astype(np.uint16)
    whole, extent = smooth(image, sigma), Box.of_shape(image.shape)
    expected = ndimage.gaussian_filter(image.astype(np.float32), sigma, truncate=3, mode="nearest")
    np.testing.assert_array_equal(whole, expected)
    grid = BlockGrid(image.shape, (5, 9, 12))
    for box in map(grid.box, grid.indices()):
        around = box.pad(smoothing_halo(sigma)) & extent
        part = smooth(image[around.slices], sigma)[box.slices_in(around)]
        np.testing.assert_array_equal(part, whole[box.slices])


def test_dark_objects_are_all_that_is_not_above_the_level():
    image = np.array([[[1.0, 2.0, 3.0, np.nan]]])
    assert foreground(image, 2.0, bright=True).tolist() == [[[False, False, True, False]]]
    assert foreground(image, 2.0, bright=False).tolist() == [[[True, True, False, False]]]


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_touching_balls_are_cut_where_they_meet(voxel):
    truth = balls((30, 40, 60), [(14, 20, 15), (14, 20, 33), (14, 20, 50)], 10, voxel)
    found = basins(truth > 0, BasinSettings(voxel, 1.0, False))
    assert found.dtype == np.uint32
    assert found.max() == 3
    assert ((found > 0) == (truth > 0)).all()
    pairs = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
    assert np.sort(pairs[1])[-4:].sum() > 0.995 * truth.size


def test_objects_can_grow_until_they_meet():
    truth = balls((12, 20, 40), [(6, 10, 10), (6, 10, 30)], 5)
    found = basins(truth > 0, BasinSettings((1.0, 1.0, 1.0), 1.0, True))
    assert set(np.unique(found)) == {1, 2}
    assert found[6, 10, 10] != found[6, 10, 30]
    assert abs(np.argmax(found[6, 10] != found[6, 10, 0]) - 20) <= 1


@pytest.mark.parametrize(("mask", "count"), [(np.zeros, 0), (np.ones, 1)])
@pytest.mark.parametrize("fill", [False, True])
def test_nothing_and_everything(mask, count, fill):
    found = basins(mask((4, 5, 6), bool), BasinSettings((1.0, 1.0, 1.0), 1.0, fill))
    assert found.max() == count
    assert (found == count).all()


def test_what_lies_in_the_halo_alone_is_left_out():
    labels = np.array([[[1, 0, 2, 2, 3, 3, 0, 4]]], np.uint32)
    inside = numbered_inside(labels, np.s_[:, :, 3:7])
    assert inside.tolist() == [[[0, 0, 1, 1, 2, 2, 0, 0]]]


def test_labels_are_alike_where_they_share_most_of_their_voxels():
    here = np.array([[[1, 1, 1, 2, 2, 2, 0, 3]]])
    there = np.array([[[5, 5, 5, 5, 6, 6, 0, 0]]])
    # 1 and 5 share 3 of 4 voxels, 2 and 6 share 2 of 3, 2 and 5 one of 6
    assert alike(here, there, 0.7).tolist() == [[1, 5]]
    assert alike(here, there, 0.6).tolist() == [[1, 5], [2, 6]]
    assert alike(here, there, 0.1).tolist() == [[1, 5], [2, 5], [2, 6]]
    assert alike(here * 0, there, 0.1).shape == (0, 2)
