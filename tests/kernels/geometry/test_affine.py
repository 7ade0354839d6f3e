"""Maps as matrices: laws, and bounding boxes against a dense scan."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box

small = st.floats(-0.3, 0.3)


def some_affine(rng, ndim, *, perspective=False):
    matrix = np.eye(ndim + 1)
    matrix[:ndim, :ndim] += rng.uniform(-0.3, 0.3, (ndim, ndim))
    matrix[:ndim, ndim] = rng.uniform(-20, 20, ndim)
    if perspective:
        matrix[ndim, :ndim] = rng.uniform(-1e-3, 1e-3, ndim)
    return matrix


def grid_of(box):
    axes = np.meshgrid(*(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)))
    return np.stack([a.ravel() for a in axes], axis=1).astype(float)


@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_apply_is_the_homogeneous_product(ndim, perspective):
    rng = np.random.default_rng(0)
    matrix = some_affine(rng, ndim, perspective=perspective)
    points = rng.uniform(-50, 50, (20, ndim))
    columns = matrix @ np.hstack([points, np.ones((20, 1))]).T
    np.testing.assert_allclose(affine.apply(matrix, points), (columns[:-1] / columns[-1]).T)
    back = affine.apply(np.linalg.inv(matrix), affine.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-9)
    assert affine.is_affine(matrix) != perspective


@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_bounding_box_holds_every_mapped_voxel(seed, perspective):
    matrix = some_affine(np.random.default_rng(seed), 2, perspective=perspective)
    box = Box((-3, 2), (9, 17))
    mapped = affine.apply(matrix, grid_of(box))
    found = affine.bounding_box(matrix, box)
    assert (mapped >= np.array(found.start) - 1 - 1e-6).all()
    assert (mapped <= np.array(found.stop) + 1e-6).all()
    inside = np.array(found.start), np.array(found.stop) - 1
    assert (mapped.min(axis=0) <= inside[0]).all()
    assert (mapped.max(axis=0) >= inside[1] - 1e-6).all()


@given(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), st.floats(-9e-7, 9e-7))
def test_whole_shift_keeps_the_shape(offset, hair):
    matrix = affine.translation([o + hair for o in offset])
    assert affine.bounding_box(matrix, Box.of_shape((7, 5))) == Box.of_shape((7, 5), offset)


@pytest.mark.parametrize(
    "rows",
    [[[1.0, 0.0, 5.0], [0.0, 1.0, 6.0]], [[1.0, 0.0, 5.0], [0.0, 1.0, 6.0], [0.0, 0.0, 1.0]]],
)
def test_files_hold_the_upper_part(rows):
    np.testing.assert_array_equal(affine.homogeneous(rows), affine.translation([5.0, 6.0]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], "2x3 or 3x3"),
        ([[1.0, 0.0, 0.0, 0.0]], "3x4 or 4x4"),
        ([[1.0, 0.0, np.nan], [0.0, 1.0, 0.0]], "not finite"),
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], "singular"),
    ],
)
def test_bad_matrices(rows, message):
    with pytest.raises(ValueError, match=message):
        affine.homogeneous(rows)
