import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.whole import likeness, moments, refine, scan


def texture(shape, seed=0):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 1.5).astype(np.float32)


WORLD = texture((60, 80, 90))
CUBE = (1.0, 1.0, 1.0)


def test_a_shift_of_half_a_volume_is_found():
    fixed, moving = WORLD[10:40, 5:45, 2:42], WORLD[14:44, 22:62, 24:64]
    shared = np.corrcoef(fixed.ravel(), moving.ravel())[0, 1]
    assert abs(shared) < 0.1
    found = scan(fixed, moving, np.eye(4), CUBE)
    np.testing.assert_allclose(found.matrix, affine.translation([-4.0, -17.0, -22.0]))
    assert found.score > 8


def test_unrelated_volumes_score_low():
    found = scan(WORLD[:30, :40, :40], texture((30, 40, 40), 5), np.eye(4), CUBE)
    assert found.score < 6


def test_volumes_may_have_holes():
    fixed, moving = WORLD[10:40, 5:45, 2:42].copy(), WORLD[14:44, 22:62, 24:64].copy()
    fixed[:, :10], moving[20:] = np.nan, np.nan
    found = scan(fixed, moving, np.eye(4), CUBE)
    np.testing.assert_allclose(found.matrix, affine.translation([-4.0, -17.0, -22.0]))


def test_a_turn_is_found_among_those_that_are_tried():
    shape, angle = (24, 32, 32), np.deg2rad(12.0)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    middle = (np.array(shape) - 1) / 2
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    moving = WORLD[:24, :32, :32]
    fixed = ndimage.affine_transform(moving, turn[:3, :3], turn[:3, 3], order=1, cval=np.nan)
    still = scan(fixed, moving, np.eye(4), CUBE)
    found = scan(fixed, moving, np.eye(4), CUBE, most_degrees=12.0, step_degrees=12.0)
    assert found.score > still.score
    points = middle + np.array([[0, 8, 8], [6, -8, 8], [-6, 8, -8]])
    apart = affine.apply(found.matrix, points) - affine.apply(turn, points)
    assert np.abs(apart).max() < 1.5


SIZE = (1.4, 1.0, 1.0)


def flat_turn(degrees, shape):
    """About y, of voxels as in `SIZE`, about the middle of a volume."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    linear = np.diag(1 / np.array(SIZE)) @ turn @ np.diag(SIZE)
    middle = (np.array(shape) - 1) / 2
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, middle - linear @ middle
    return matrix


@pytest.mark.parametrize("degrees", [12.0, -12.0])
def test_flat_voxels_turn_as_the_thing_does(degrees):
    moving = WORLD[:32, :36, :40]
    turn = flat_turn(degrees, moving.shape)
    fixed = ndimage.affine_transform(moving, turn[:3, :3], turn[:3, 3], order=1, cval=np.nan)
    found = scan(fixed, moving, np.eye(4), SIZE, most_degrees=12.0, step_degrees=12.0)
    np.testing.assert_allclose(found.matrix[:3, :3], turn[:3, :3], atol=1e-6)


def test_what_is_rigid_is_so_for_flat_voxels():
    moving = WORLD[:40, :60, :60]
    turn = flat_turn(4.0, moving.shape)
    fixed = ndimage.affine_transform(moving, turn[:3, :3], turn[:3, 3], order=3, cval=np.nan)
    fixed = fixed.astype(np.float32)
    points = np.array([[4.0, 10, 4], [36, 50, 10], [20, 30, 56]])

    def error(size):
        found, _ = refine(fixed, moving, np.eye(4), size, "rigid")
        return np.abs(affine.apply(found, points) - affine.apply(turn, points)).max()

    assert error(SIZE) < 0.15
    assert error(CUBE) > 0.3


def test_likeness_is_the_correlation_of_what_both_show_at_the_given_place():
    fixed, moving = WORLD[10:40, 5:45, 2:42].copy(), WORLD[14:44, 8:48, 4:44]
    fixed[:, :10] = np.nan
    placed = affine.translation([-4.0, -3.0, -2.0])
    np.testing.assert_allclose(likeness(fixed, 2 * moving + 1, placed), 1.0, atol=1e-6)
    apart = np.corrcoef(fixed[:, 10:].ravel(), moving[:, 10:].ravel())[0, 1]
    np.testing.assert_allclose(likeness(fixed, moving, np.eye(4)), apart, atol=1e-6)
    assert np.isnan(likeness(fixed, moving, affine.translation([99.0, 0.0, 0.0])))


def test_centres_of_mass_meet():
    blob = ndimage.gaussian_filter(np.pad(np.ones((6, 8, 10), np.float32), 12), 2)
    fixed = np.pad(blob, [(0, 9), (5, 0), (0, 0)]) + 7
    moving = 3 * np.pad(blob, [(4, 0), (0, 6), (2, 1)]) + 1
    found = moments(fixed, moving, np.eye(4))
    np.testing.assert_allclose(found, affine.translation([4.0, -5.0, 2.0]), atol=1e-4)
    moving[:, :2] = np.nan
    np.testing.assert_allclose(moments(fixed, moving, np.eye(4)), found, atol=1e-3)
    with pytest.raises(ValueError, match="nothing"):
        moments(np.full_like(fixed, 5), moving, np.eye(4))


@pytest.mark.parametrize("model", ["similarity", "affine", "trsaa"])
def test_patches_refine_the_start(model):
    matrix = np.eye(4)
    matrix[:3, :3] *= 1.03
    matrix[:3, 3] = (-1.5, 1.0, 2.2)
    moving = WORLD[:40, :60, :60]
    fixed = ndimage.affine_transform(moving, matrix[:3, :3], matrix[:3, 3], order=3, cval=np.nan)
    found, fit = refine(fixed.astype(np.float32), moving, np.eye(4), CUBE, model)
    assert fit is not None
    points = np.array([[10.0, 10, 10], [30, 50, 10], [20, 30, 45]])
    apart = affine.apply(found, points) - affine.apply(matrix, points)
    assert np.abs(apart).max() < 0.15


def test_nothing_to_match_keeps_the_start():
    flat = np.zeros((20, 20, 20), np.float32)
    found, fit = refine(flat, flat, affine.translation([1.0, 2.0, 3.0]), CUBE, "affine")
    assert fit is None
    np.testing.assert_array_equal(found, affine.translation([1.0, 2.0, 3.0]))
