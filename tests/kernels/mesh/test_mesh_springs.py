import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.mesh.energy import Elasticity, MeshEnergy
from warpbeam.kernels.mesh.springs import Springs, links

CASES = [
    ((5, 6), (10.0, 12.0), False, False),
    ((5, 6), (10.0, 12.0), True, True),
    ((3, 4, 3), (8.0, 10.0, 12.0), False, True),
    ((3, 4, 3), (8.0, 10.0, 12.0), True, False),
]


def mesh_of(shape, stride, ordered, holes, bending=30.0):
    active = None
    if holes:
        active = np.ones(shape, bool)
        active[(1,) * len(shape)] = False
    return MeshEnergy(Elasticity(stride, 0.1, bending, ordered), shape, active)


@pytest.mark.parametrize(("shape", "stride", "ordered", "holes"), CASES)
def test_forces_are_the_negative_gradient(shape, stride, ordered, holes):
    rng = np.random.default_rng(0)
    mesh = mesh_of(shape, stride, ordered, holes)
    # large enough that some springs point backwards
    u, target = rng.normal(0, 6, (2, len(shape), *shape))
    weight = rng.uniform(0, 1, shape)
    _, gradient = mesh.expand(u, target, weight)
    for index in itertools.islice(np.ndindex(u.shape), 0, u.size, 7):
        step = np.zeros_like(u)
        step[index] = 1e-5
        up, down = mesh.value(u + step, target, weight), mesh.value(u - step, target, weight)
        assert gradient[index] == pytest.approx((up - down) / 2e-5, abs=2e-6)


@pytest.mark.parametrize(("shape", "stride", "ordered", "holes"), CASES)
def test_curvature_is_the_derivative_of_the_forces(shape, stride, ordered, holes):
    rng = np.random.default_rng(1)
    mesh = mesh_of(shape, stride, ordered, holes)
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    # every spring is stretched, so that no part of the curvature is left out
    u = 0.5 * np.stack([a * s for a, s in zip(axes, stride, strict=True)])
    u += rng.normal(0, 0.5, u.shape)
    weight, x = rng.uniform(0, 1, shape), rng.normal(0, 1, u.shape)
    model, _ = mesh.expand(u, np.zeros_like(u), weight)
    after, before = (
        mesh.expand(u + side * 1e-5 * x, np.zeros_like(u), weight)[1] for side in (1, -1)
    )
    np.testing.assert_allclose(mesh.product(model, weight, x), (after - before) / 2e-5, atol=1e-6)


@given(st.floats(-np.pi, np.pi), st.floats(-100, 100))
def test_rotations_and_shifts_cost_nothing(angle, shift):
    rng = np.random.default_rng(2)
    springs = Springs(links((10.0, 10.0), 0.1), (4, 5))
    nodes = 10.0 * np.stack(np.meshgrid(np.arange(4), np.arange(5), indexing="ij"))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    u = rng.normal(0, 1, nodes.shape)
    turned = np.tensordot(turn, nodes + u, 1) + shift - nodes
    assert springs.energy(turned) == pytest.approx(springs.energy(u), rel=1e-9)
    assert springs.energy(turned - np.tensordot(turn, u, 1)) == pytest.approx(0, abs=1e-12)


def test_one_displaced_node_pulls_its_neighbours():
    """x moved by 4, y by -3; k 0.1, rest lengths 10."""
    u = np.zeros((2, 5, 5))
    u[:, 2, 2] = -3, 4
    force = -Springs(links((10.0, 10.0), 0.1), (5, 5)).expand(u).gradient
    right = np.hypot(6, 3)
    assert force[:, 2, 3] == pytest.approx(-0.1 * (1 - 10 / right) * np.array([3, 6]), abs=1e-6)
    below = np.hypot(13, 4)
    assert force[:, 3, 2] == pytest.approx(-0.1 * (1 - 10 / below) * np.array([13, -4]), abs=1e-6)
    k, rest = 0.1 / np.sqrt(2), np.hypot(10, 10)
    corner = np.hypot(13, 6)
    assert force[:, 3, 3] == pytest.approx(-k * (1 - rest / corner) * np.array([13, 6]), abs=1e-6)
    assert force.sum(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_nothing_pulls_at_rest(ndim):
    springs = Springs(links((10.0,) * ndim, 0.1), (4,) * ndim)
    assert len(springs.links) == (3**ndim - 1) // 2
    assert not springs.expand(np.zeros((ndim, *(4,) * ndim))).gradient.any()


def test_one_layer_in_3d_is_the_2d_mesh():
    u = np.random.default_rng(3).normal(0, 2, (2, 5, 6))
    flat = Springs(links((10.0, 10.0), 0.1), (5, 6)).expand(u)
    layer = Springs(links((10.0,) * 3, 0.1), (1, 5, 6))
    deep = layer.expand(np.concatenate([np.zeros((1, 5, 6)), u])[:, None])
    np.testing.assert_allclose(deep.gradient[1:, 0], flat.gradient, atol=1e-12)
    assert deep.energy == pytest.approx(flat.energy)


@pytest.mark.parametrize("ordered", [False, True])
def test_only_ordered_springs_undo_a_flip(ordered):
    """Two nodes that changed places: mirrored is at rest, or it is pushed back."""
    springs = Springs(links((10.0, 10.0), 0.1), (1, 2), ordered=ordered)
    u = np.zeros((2, 1, 2))
    u[1, 0] = 10, -10
    pull = -springs.expand(u).gradient[1, 0]
    assert pull == pytest.approx([-2.0, 2.0] if ordered else [0.0, 0.0])
