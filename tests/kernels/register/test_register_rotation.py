import cv2
import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.keypoints import match_keypoints
from warpbeam.kernels.register.match import RoughMatch
from warpbeam.kernels.register.rotation import rotation_scan


def texture(seed, shape=(420, 460)):
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.normal(size=shape), s) * s for s in (1.5, 4, 10)]
    return (128 + 60 * sum(layers)).astype(np.float32)


def pair(degrees, shift, seed=0):
    """Two views of one texture, and the matrix from pixels of the first to the second."""
    big = texture(seed)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([209.5, 229.5])
    fixed = big[60:360, 60:400]
    # moving[q] = big[turn @ (q - middle) + middle + shift]
    rows = np.column_stack([turn, middle + shift - turn @ middle])
    swapped = rows[[1, 0]][:, [1, 0, 2]]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moving = cv2.warpAffine(big, swapped, big.shape[::-1], flags=flags)
    matrix = np.linalg.inv(np.vstack([rows, [0, 0, 1]])) @ affine.translation([60.0, 60.0])
    return fixed, moving, matrix


def error(found, matrix, shape=(300, 340)):
    corners = np.array([[0, 0], [0, shape[1]], [shape[0], 0], shape], float)
    apart = affine.apply(found.matrix, corners) - affine.apply(matrix, corners)
    return np.linalg.norm(apart, axis=1).max()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (17.0, -33.0), (-80.0, 41.0)])
def test_shifts_alone(shift):
    fixed, moving, matrix = pair(0.0, np.array(shift))
    found = rotation_scan(fixed, moving)
    assert found.score > 10
    assert error(found, matrix) < 1.0


@pytest.mark.parametrize("degrees", [-9.0, 3.3, 7.1])
def test_turns(degrees):
    fixed, moving, matrix = pair(degrees, np.array([9.0, -14.0]))
    found = rotation_scan(fixed, moving, most_degrees=10.0)
    assert found.score > 10
    assert error(found, matrix) < 2.5


def test_what_is_not_known_does_not_count():
    fixed, moving, matrix = pair(0.0, np.array([12.0, 5.0]))
    fixed, moving = fixed.copy(), moving.copy()
    fixed[:, :100] = np.nan
    moving[200:] = np.nan
    assert error(rotation_scan(fixed, moving), matrix) < 1.0


def test_unrelated_images_score_low():
    scores = [rotation_scan(texture(k), texture(100 + k), most_degrees=8.0).score for k in range(3)]
    assert max(scores) < 6


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_nothing_is_found_in_an_empty_image(value):
    empty = np.full((100, 120), value, np.float32)
    found = rotation_scan(empty, texture(0), most_degrees=4.0)
    assert not found.score > 6
    assert np.isnan(match_keypoints(empty, texture(0), "rigid").score)


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_keypoints(model):
    fixed, moving, matrix = pair(0.0 if model == "translation" else 25.0, np.array([30.0, -20.0]))
    found = match_keypoints(fixed, moving, model)
    assert found.score > 10
    assert error(found, matrix) < 0.5


def test_points_say_what_the_matrix_says():
    _, _, matrix = pair(5.0, np.array([40.0, 3.0]))
    at, there = RoughMatch(matrix, 9.0, "ncc").points((300, 340), (420, 460))
    np.testing.assert_allclose(affine.apply(matrix, at), there)
    assert len(at) == 9
    assert np.ptp(at, axis=0).min() > 100
