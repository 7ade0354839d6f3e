import numpy as np
import pytest

from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.fire import FireSettings, relax_fire
from warpbeam.kernels.mesh.gauss_newton import relax


def noisy_field(n, seed=0, stride=40.0):
    rng = np.random.default_rng(seed)
    y, x = stride * np.mgrid[:n, :n]
    smooth = [
        9.6 + 8 * np.sin(2 * np.pi * x / 1024 + 1),
        -7.2 + 8 * np.cos(2 * np.pi * (x + y) / 1024),
    ]
    return np.stack(smooth) + rng.normal(0, 0.5, (2, n, n))


@pytest.mark.parametrize(
    ("spring", "bending", "ordered", "weight"),
    [(0.1, 0.0, False, 0.01), (0.1, 0.0, True, 1.0), (0.02, 200.0, False, 1.0)],
)
def test_the_minimum_is_that_of_fire(spring, bending, ordered, weight):
    target = noisy_field(14)
    target[:, np.random.default_rng(1).random((14, 14)) < 0.3] = np.nan
    active = np.ones((14, 14), bool)
    active[3:5, 2:6] = False
    elasticity = Elasticity((40.0, 40.0), spring, bending, ordered)
    weights = np.full((14, 14), weight)
    fast = relax(target, elasticity, weight=weights, active=active)
    fire = relax_fire(target, elasticity, FireSettings(force_tolerance=1e-9), weight=weights, active=active)  # fmt: skip # noqa: E501
    assert fast.converged
    assert fire.converged
    assert fast.energy == pytest.approx(fire.energy, rel=1e-12)
    np.testing.assert_allclose(fast.offsets, fire.offsets, atol=1e-4)
    assert fast.steps <= 10 < fire.steps


def test_the_minimum_is_that_of_fire_in_3d():
    target = np.random.default_rng(0).normal(0, 3, (3, 5, 6, 7))
    elasticity = Elasticity((40.0, 20.0, 20.0), 0.1)
    weight = np.full((5, 6, 7), 0.05)
    fast = relax(target, elasticity, weight=weight)
    fire = relax_fire(target, elasticity, FireSettings(force_tolerance=1e-9), weight=weight)
    np.testing.assert_allclose(fast.offsets, fire.offsets, atol=1e-4)


def test_two_nodes_in_closed_form():
    """Springs k and w in series: of a pull d apart, each end takes half of `w d / (w + 2 k)`."""
    target = np.zeros((2, 1, 2))
    target[1, 0] = -3, 3
    found = relax(target, Elasticity((10.0, 10.0), 0.1), weight=np.full((1, 2), 0.2))
    assert found.offsets[1, 0] == pytest.approx([-1.5, 1.5], abs=1e-6)
    assert found.energy == pytest.approx(0.05 * 3**2 + 2 * 0.1 * 1.5**2)


def test_a_disturbed_mesh_relaxes_to_rest():
    start = np.random.default_rng(0).normal(0, 2, (2, 6, 6))
    target = np.full((2, 6, 6), np.nan)
    target[:, 0, 0] = target[:, 5, 5] = 0
    found = relax(target, Elasticity((10.0, 10.0), 0.1), start=start)
    np.testing.assert_allclose(found.offsets, 0, atol=1e-3)


@pytest.mark.parametrize("degrees", [5, 40])
def test_a_rotation_is_followed_without_strain(degrees):
    nodes = 40.0 * np.mgrid[:9, :9] - 160
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    target = np.tensordot([[c, -s], [s, c]], nodes, 1) - nodes + 25
    sparse = target.copy()
    sparse[:, 2:7] = np.nan
    found = relax(sparse, Elasticity((40.0, 40.0), 0.1))
    np.testing.assert_allclose(found.offsets, target, atol=1e-3)
    assert found.energy == pytest.approx(0, abs=1e-6)


def test_missing_rows_are_bridged():
    """Bending carries an affine map exactly across 60 % missing nodes."""
    y, x = 40.0 * np.mgrid[:15, :12]
    truth = np.stack([3 + 0.02 * x, -5 + 0.01 * y - 0.03 * x])
    target = truth.copy()
    target[:, 3:12] = np.nan
    found = relax(target, Elasticity((40.0, 40.0), bending_px=300.0))
    np.testing.assert_allclose(found.offsets, truth, atol=1e-4)


def test_parts_without_a_target_are_not_known():
    target, active = np.ones((2, 6, 9)), np.ones((6, 9), bool)
    active[:, 4] = False
    target[:, :, 5:] = np.nan
    found = relax(target, Elasticity((40.0, 40.0), 0.1), active=active)
    assert np.isnan(found.offsets[:, :, 4:]).all()
    np.testing.assert_allclose(found.offsets[:, :, :4], 1, atol=1e-6)


def test_a_large_mesh_with_a_hole_converges():
    target = noisy_field(130)
    target[:, 30:80, 30:80] = np.nan
    found = relax(target, Elasticity((40.0, 40.0), bending_px=300.0))
    assert found.converged
    assert found.inner_steps < 80


def test_bad_arguments():
    elasticity, target = Elasticity((40.0, 40.0), 0.1), np.zeros((2, 4, 5))
    with pytest.raises(ValueError, match="none of the 20 nodes"):
        relax(np.full((2, 4, 5), np.nan), elasticity)
    with pytest.raises(ValueError, match="at least 0"):
        relax(target, elasticity, weight=np.full((4, 5), -1.0))
    with pytest.raises(ValueError, match=r"active has shape \(5, 4\), the mesh \(4, 5\)"):
        relax(target, elasticity, active=np.ones((5, 4), bool))
    with pytest.raises(ValueError, match="as many components"):
        relax(np.zeros((3, 4, 5)), elasticity)
    with pytest.raises(ValueError, match="with strides"):
        relax(np.zeros((3, 4, 5, 6)), elasticity)
    with pytest.raises(ValueError, match="springs or bending"):
        Elasticity((40.0, 40.0))
