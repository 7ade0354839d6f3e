import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.linear_fit import fit_linear

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(0, 100, (60, 3))
TURN = Rotation.from_euler("zyx", [20, -5, 7], degrees=True).as_matrix()
LINEAR = {
    "translation": np.eye(3),
    "rigid": TURN,
    "similarity": 1.2 * TURN,
    "affine": TURN + RNG.normal(0, 0.1, (3, 3)),
}


def matrix_of(model):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = LINEAR[model], (5.0, -20.0, 3.0)
    return matrix


@pytest.mark.parametrize("model", list(LINEAR))
def test_exact_pairs_give_the_exact_map(model):
    matrix = matrix_of(model)
    found = fit_linear(POINTS, affine.apply(matrix, POINTS), model)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-6)
    np.testing.assert_allclose(found.kept, 1, atol=1e-6)


@pytest.mark.parametrize("model", list(LINEAR))
def test_a_third_of_wrong_pairs_counts_for_nothing(model):
    matrix = matrix_of(model)
    targets = affine.apply(matrix, POINTS) + RNG.normal(0, 0.1, POINTS.shape)
    targets[::3] += RNG.uniform(-60, 60, targets[::3].shape)
    found = fit_linear(POINTS, targets, model)
    wanted = affine.apply(matrix, POINTS)
    assert np.linalg.norm(affine.apply(found.matrix, POINTS) - wanted, axis=1).max() < 0.5
    assert found.kept[::3].mean() < 0.2
    assert np.delete(found.kept, np.s_[::3]).mean() > 0.8
    assert 0.05 < found.scale < 0.3


def test_a_rigid_map_is_never_a_mirror():
    flat = POINTS * [1, 1, 0]
    mirrored = flat * [1, -1, 1]
    found = fit_linear(flat, mirrored, "rigid")
    assert np.linalg.det(found.matrix[:3, :3]) == pytest.approx(1)


def test_too_few_pairs_only_shift():
    found = fit_linear(POINTS[:2], POINTS[:2] + 3, "affine")
    np.testing.assert_allclose(found.matrix, affine.translation([3.0, 3.0, 3.0]), atol=1e-9)


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs"):
        fit_linear(np.empty((0, 3)), np.empty((0, 3)), "affine")
