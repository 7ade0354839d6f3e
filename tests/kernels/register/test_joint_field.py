import numpy as np
import pytest

from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.mesh.bending import bending_forms
from warpbeam.kernels.mesh.lattice import assembled
from warpbeam.kernels.register.joint_field import solve_field, solve_unfolded

STRIDE = (8.0, 8.0, 8.0)
SHAPE = (6, 7, 8)
RNG = np.random.default_rng(0)


def smooth(amplitude=1.0):
    z, y, x = np.indices(SHAPE) / 4.0
    return amplitude * np.stack([np.sin(y) + 0.1 * x, np.cos(z + x), 0.3 * z - np.sin(x)])


def isotropic(weight=1.0):
    return weight * np.broadcast_to(np.eye(3)[:, :, None, None, None], (3, 3, *SHAPE))


def test_it_is_the_minimum_of_the_energy():
    """Against a dense solve of the normal equations, with matches too good to lose weight."""
    target = smooth() + RNG.normal(0, 0.001, (3, *SHAPE))
    root = RNG.normal(size=(*SHAPE, 3, 3))
    matrix = np.moveaxis(root @ root.swapaxes(-1, -2) / 50 + 0.01 * np.eye(3), (-2, -1), (0, 1))
    found = solve_field(target, matrix, STRIDE, bending_px=20.0)
    bend = assembled(bending_forms(STRIDE, 20.0, 3), SHAPE, 3).toarray()
    n = int(np.prod(SHAPE))
    data = np.zeros((3, n, 3, n))
    for i in range(3):
        for j in range(3):
            data[i, np.arange(n), j, np.arange(n)] = (matrix[i, j] * found.kept).ravel()
    data = data.reshape(3 * n, 3 * n)
    wanted = np.linalg.solve(bend + data, data @ target.ravel()).reshape(target.shape)
    np.testing.assert_allclose(found.offsets, wanted, atol=5e-3)


def test_affine_fields_cost_nothing():
    nodes = np.indices(SHAPE) * 8.0
    target = np.tensordot(RNG.normal(0, 0.05, (3, 3)), nodes, 1) + 4.0
    found = solve_field(target, isotropic(), STRIDE, bending_px=500.0)
    np.testing.assert_allclose(found.offsets, target, atol=1e-2)


def test_wrong_matches_count_for_nothing_and_gaps_are_bridged():
    truth = smooth()
    target = truth + RNG.normal(0, 0.05, truth.shape)
    wrong = RNG.uniform(size=SHAPE) < 0.15
    target[:, wrong] += RNG.uniform(5, 20, (3, int(wrong.sum())))
    target[:, 2, 3, 3:5] = np.nan
    found = solve_field(target, isotropic(100.0), STRIDE, bending_px=40.0)
    assert np.abs(found.offsets - truth).mean() < 0.1
    known = np.isfinite(found.residual)
    assert found.kept[wrong & known].max() < 0.2
    assert found.kept[~wrong & known].mean() > 0.7
    assert np.isnan(found.residual[2, 3, 3])


def test_a_match_along_an_edge_holds_across_it_alone():
    target = np.zeros((3, *SHAPE))
    matrix = np.array(isotropic(1.0))
    target[2], matrix[2, 2] = 50.0, 1e-9  # x is not observed, whatever it says
    target[2, 0, 0, 0], matrix[2, 2, 0, 0, 0] = 0.0, 1.0
    found = solve_field(target, matrix, STRIDE, bending_px=30.0)
    assert np.abs(found.offsets[:2]).max() < 0.05
    assert np.abs(found.offsets[2, 0, 0, 0]) < 0.5


def test_a_fold_that_matches_ask_for_is_not_followed():
    target = np.zeros((3, *SHAPE))
    target[2, ..., 4:] = -20.0  # neighbours 8 apart would change sides
    sharp = solve_field(target, isotropic(100.0), STRIDE, bending_px=10.0)
    assert jacobian(CoordinateMap(sharp.offsets, (0.0,) * 3, STRIDE)).min() < 0
    found = solve_unfolded(target, isotropic(100.0), STRIDE, bending_px=10.0)
    assert jacobian(CoordinateMap(found.offsets, (0.0,) * 3, STRIDE)).min() >= 0.1


def test_no_match_is_refused():
    with pytest.raises(ValueError, match="no match"):
        solve_field(np.full((3, *SHAPE), np.nan), isotropic(), STRIDE, bending_px=10.0)
