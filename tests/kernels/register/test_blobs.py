import numpy as np
from beads import draw
from scipy.spatial import KDTree

from warpbeam.kernels.register.blobs import blobs

SHAPE = (24, 30, 36)
PLACES = np.array([[8.3, 9.0, 10.6], [14.0, 20.4, 8.0], [9.0, 18.0, 27.7], [16.2, 8.0, 25.0]])
HEIGHTS = np.array([1.0, -0.8, 0.6, -0.4])


def test_blobs_are_found_between_voxels_and_the_strongest_first():
    found = blobs(draw(PLACES, HEIGHTS, SHAPE), 4)
    np.testing.assert_allclose(found.points, PLACES, atol=0.15)
    np.testing.assert_array_equal(found.bright, HEIGHTS > 0)


def test_no_more_than_asked():
    volume = draw(PLACES, HEIGHTS, SHAPE)
    np.testing.assert_array_equal(blobs(volume, 2).points, blobs(volume, 4).points[:2])


def test_what_is_not_known_has_no_rim():
    volume = draw(PLACES, HEIGHTS, SHAPE) + 50
    volume[:, :, 20:] = np.nan
    found = blobs(volume, 100)
    distance, _ = KDTree(PLACES[:2]).query(found.points[:2])
    assert distance.max() < 0.2
    assert found.points[:, 2].max() < 18.5


def test_a_flat_volume_has_none():
    assert len(blobs(np.full(SHAPE, 7, np.float32), 10).points) == 0
