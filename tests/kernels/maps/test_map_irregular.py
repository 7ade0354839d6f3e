"""Jacobians, folds and spacing in closed form."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import from_affine, identity, on_lattice
from warpbeam.kernels.maps.irregular import folded, irregular, jacobian, mask_irregular


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_jacobian_of_an_affine_map(ndim):
    rng = np.random.default_rng(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:ndim] += rng.uniform(-0.4, 0.4, (ndim, ndim + 1))
    lattice = Lattice((7.0,) * ndim, (3.0, 10.0, 4.0)[:ndim], (5, 6, 4)[:ndim])
    got = jacobian(from_affine(matrix, lattice))
    assert got.shape == (4, 5, 3)[:ndim]
    np.testing.assert_allclose(got, np.linalg.det(matrix[:ndim, :ndim]), rtol=1e-9)


def test_the_worst_corner_counts():
    """One corner of a unit square is pushed over the diagonal: there the cell is inside out."""
    m = identity(Lattice((0.0, 0.0), (1.0, 1.0), (2, 2)))
    for push, sign in ((-0.4, 1), (-0.6, -1)):
        m.u[:, 1, 1] = push  # the diagonal is passed at -0.5
        assert np.sign(jacobian(m)[0, 0]) == sign
        np.testing.assert_allclose(jacobian(m)[0, 0], 1 + 2 * push, atol=1e-12)
        np.testing.assert_array_equal(folded(m), [[sign < 0]])


def test_folds_of_a_wave():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (4, 60))
    u = np.zeros((2, 2, 4, 60))
    u[1, 1] = 60 * np.sin(2 * np.pi * lattice.along(1) / 200)
    m = on_lattice(u, lattice)
    slope = 1 + np.diff(u[1, 1, 0]) / 10
    np.testing.assert_array_equal(folded(m)[0], False)
    np.testing.assert_array_equal(folded(m)[1], np.broadcast_to(slope <= 0, (3, 59)))
    bad = irregular(m, 0.0, np.inf, dilate=0)
    np.testing.assert_array_equal(bad[1, :3, :59], folded(m)[1])
    assert not bad[0].any()
    assert irregular(m, 0.0, np.inf, dilate=1)[0].sum() == 0  # sections do not leak


def test_links_of_any_direction():
    m = identity(Lattice((0.0,) * 3, (5.0, 10.0, 10.0), (6, 7, 8)))
    m.u[1, 3:] = 20  # a slip between two planes stretches the links across it to 20.6
    bad = irregular(m, 0.5, 2.0, dilate=0)
    expected = np.zeros((6, 7, 8), bool)
    expected[2] = True
    np.testing.assert_array_equal(bad, expected)
    masked = mask_irregular(m, 0.5, 2.0)
    np.testing.assert_array_equal(np.isnan(masked.u[0, :, 0, 0]), [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(masked.u[1, 4:], 20)
    assert m.known.all()


def test_unknown_nodes_are_regular():
    m = identity(Lattice((0.0, 0.0), (1.0, 1.0), (5, 5)))
    m.u[:, 2, 2] = np.nan
    assert np.isnan(jacobian(m)[1:3, 1:3]).all()
    assert not folded(m).any()
    assert not irregular(m, 0.9).any()
