import numpy as np
import pytest
from beads import draw, scattered

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.constellations import match_constellations
from warpbeam.kernels.register.whole import scan

SHAPE = np.array((36, 44, 48))
PLACES, HEIGHTS = scattered(SHAPE, 200)
POINTS = SHAPE / 2 + np.array([[0, 0, 0], [8, 0, 0], [0, 8, -8], [-8, 8, 8]])
UNIT = (1.0, 1.0, 1.0)


def motion(axis, degrees, shift):
    """About the middle (Rodrigues), then a shift."""
    axis = np.array(axis, float) / np.linalg.norm(axis)
    cross, angle = np.cross(np.eye(3), axis), np.deg2rad(degrees)
    linear = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix = np.eye(4)
    middle = (SHAPE - 1) / 2
    matrix[:3, :3], matrix[:3, 3] = linear, middle + shift - linear @ middle
    return matrix


def pair(matrix, *, fixed_size=UNIT, moving_size=UNIT, noise=0.0):
    """Beads of `fixed` at p are at `matrix p` in `moving`; both in units, drawn in voxels."""
    volumes = []
    for places, size in ((PLACES, fixed_size), (affine.apply(matrix, PLACES), moving_size)):
        shape = tuple(round(n / s) for n, s in zip(SHAPE, size, strict=True))
        volumes.append(draw(places / size, HEIGHTS, shape, noise=noise, seed=len(volumes)))
    return volumes


def apart(found, matrix):
    return np.linalg.norm(affine.apply(found, POINTS) - affine.apply(matrix, POINTS), axis=1).max()


@pytest.mark.parametrize(
    ("axis", "degrees", "shift"),
    [
        ((1, 0, 0), 40, (0, 6, -4)),
        ((0, 1, 0), 90, (3, 0, 5)),
        ((1, 0.3, 0.2), 120, (2, -8, 8)),
        ((0.6, 0.5, 0.6), 170, (4, 10, -6)),
    ],
)
def test_any_turn_is_found_where_nothing_correlates(axis, degrees, shift):
    matrix = motion(axis, degrees, shift)
    fixed, moving = pair(matrix, noise=0.05)
    assert abs(np.corrcoef(fixed.ravel(), moving.ravel())[0, 1]) < 0.1
    assert apart(scan(fixed, moving, np.eye(4), UNIT).matrix, matrix) > 5
    found = match_constellations(fixed, moving, np.eye(4), UNIT)
    assert apart(found, matrix) < 0.5
    assert scan(fixed, moving, found, UNIT).score > 10


def test_voxel_sizes_are_not_taken_for_a_turn():
    matrix = motion((1, 0, 0), 100, (0, 4, 4))
    sizes = (1.4, 1.0, 1.0), (1.0, 1.2, 1.0)
    fixed, moving = pair(matrix, fixed_size=sizes[0], moving_size=sizes[1])
    scale = [np.diag([*size, 1.0]) for size in sizes]
    start = np.linalg.inv(scale[1]) @ scale[0]
    found = match_constellations(fixed, moving, start, sizes[0])
    assert apart(scale[1] @ found @ np.linalg.inv(scale[0]), matrix) < 0.5


def test_a_part_of_the_volume_is_enough():
    matrix = motion((1, 0, 0), 120, (0, 10, 0))
    fixed, moving = pair(matrix)
    fixed[:, :20], moving[:, :, 40:] = np.nan, np.nan
    assert apart(match_constellations(fixed, moving, np.eye(4), UNIT), matrix) < 0.5


def test_a_mirrored_volume_is_not_taken_for_a_turned_one():
    fixed, moving = pair(motion((1, 0, 0), 0, (0, 0, 0)))
    found = match_constellations(fixed, moving[:, :, ::-1].copy(), np.eye(4), UNIT)
    assert np.linalg.det(found[:3, :3]) > 0
    assert scan(fixed, moving[:, :, ::-1].copy(), found, UNIT).score < 10


def test_the_same_volumes_give_the_same_bits():
    fixed, moving = pair(motion((1, 0, 0), 60, (0, 0, 0)), noise=0.1)
    first, again = (match_constellations(fixed, moving, np.eye(4), UNIT) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_no_blobs_leave_the_start():
    flat, start = np.full(tuple(SHAPE), 7, np.float32), affine.translation([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(match_constellations(flat, flat, start, UNIT), start)
