import numpy as np

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.register.joint_field import solve_field
from warpbeam.kernels.register.landmarks import with_landmarks

LATTICE = Lattice((-4.0, 0.0, 0.0), (8.0, 8.0, 8.0), (8, 10, 10))


def matches(known):
    """Zero displacement wherever something was measured."""
    target = np.where(known, 0.0, np.nan) * np.ones((3, 1, 1, 1))
    information = np.where(known, np.eye(3).reshape(3, 3, 1, 1, 1), 0.0)
    return target, information


def test_a_node_takes_the_mean_of_its_landmarks_and_the_others_stay():
    target, information = matches(np.ones(LATTICE.shape, bool))
    points = np.array([[12.0, 16.0, 24.0], [13.0, 14.0, 25.0], [400.0, 0.0, 0.0]])
    offsets = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [9.0, 9.0, 9.0]])
    found, weight = with_landmarks(target, information, LATTICE, points, offsets, 0.5)
    np.testing.assert_allclose(found[:, 2, 2, 3], [2, 2, 2])
    np.testing.assert_allclose(weight[..., 2, 2, 3], 8 * np.eye(3))
    found[:, 2, 2, 3], weight[..., 2, 2, 3] = 0, np.eye(3)
    np.testing.assert_array_equal(found, target)
    np.testing.assert_array_equal(weight, information)


def test_where_nothing_is_seen_the_field_goes_through_the_landmark():
    known = np.zeros(LATTICE.shape, bool)
    known[:, :, :3] = True
    target, information = matches(known)
    points, offsets = np.array([[28.0, 40.0, 64.0]]), np.array([[0.0, 3.0, 0.0]])
    found = solve_field(
        *with_landmarks(target, information, LATTICE, points, offsets, 0.2),
        LATTICE.stride, bending_px=60.0,
    )  # fmt: skip
    np.testing.assert_allclose(found.offsets[:, 4, 5, 8], [0, 3, 0], atol=0.3)


def test_a_landmark_that_all_others_contradict_loses():
    target, information = matches(np.ones(LATTICE.shape, bool))
    points, offsets = np.array([[28.0, 40.0, 40.0]]), np.array([[0.0, 30.0, 0.0]])
    found = solve_field(
        *with_landmarks(target, information, LATTICE, points, offsets, 1.0),
        LATTICE.stride, bending_px=60.0,
    )  # fmt: skip
    assert np.abs(found.offsets).max() < 0.05
