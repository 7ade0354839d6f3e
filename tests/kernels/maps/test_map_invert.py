"""Inverses against closed forms: folds, holes, mirrors, coarse and fine lattices."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import from_affine, identity, on_lattice
from warpbeam.kernels.maps.invert import invert


def lattice_of(shape, stride, origin=0.0):
    return Lattice((origin,) * len(shape), (stride,) * len(shape), shape)


def test_a_fold_is_not_known():
    """x + 60 sin(2 pi x / 200): three places lead to a target under the fold, one elsewhere."""
    lattice = lattice_of((4, 101), 10.0)
    u = np.zeros((2, 4, 101))
    x = lattice.along(1)
    u[1] = 60 * np.sin(2 * np.pi * x / 200)
    back = invert(on_lattice(u, lattice))
    fine = np.interp(np.arange(0, 1000, 0.01), x, x + u[1, 0])  # the map is linear between nodes
    places = [np.flatnonzero(np.diff(np.sign(fine - t)) != 0) * 0.01 for t in x[:-1]]
    many = np.array([np.ptp(p) > 0.05 for p in places])
    known = back.known.all(axis=0)[:-1]
    assert many.sum() > 8
    assert not known[many].any()
    near = np.convolve(many, np.ones(3), "same") > 0  # a fold's cells reach one node further
    assert known[~near].all()
    error = [x[i] + back.u[1, 1, i] - places[i][0] for i in np.flatnonzero(known)]
    assert np.abs(error).max() < 0.03


def test_two_sheets_without_a_fold_are_not_known():
    """The two halves of a map lead to the same place, and its middle is not known."""
    lattice = lattice_of((5, 11), 1.0)
    m = identity(lattice)
    m.u[1, :, 6:] = -6
    m.u[:, :, 5] = np.nan
    back = invert(m)
    assert not back.known[:, :5].any()
    assert not back.known[:, 5:].any()  # nothing leads there


def test_a_hole_stays_a_hole():
    lattice = lattice_of((20, 20), 8.0)
    m = from_affine(np.array([[1, 0, 16.0], [0, 1, -24.0], [0, 0, 1]]), lattice)
    m.u[:, 10, 10] = np.nan
    back = invert(m)
    unknown = np.zeros((20, 20), bool)
    unknown[:2] = True
    unknown[:, 17:] = True
    unknown[12, 7] = True
    np.testing.assert_array_equal(~back.known, unknown)
    np.testing.assert_allclose(back.u[0][~unknown], -16, atol=1e-9)
    np.testing.assert_allclose(back.u[1][~unknown], 24, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_mirror(ndim):
    lattice = lattice_of((9,) * ndim, 5.0)
    matrix = np.eye(ndim + 1)
    matrix[1, 1], matrix[1, -1] = -1, 40
    matrix[0, 1] = 0.125
    back = invert(from_affine(matrix, lattice))
    truth = from_affine(np.linalg.inv(matrix), lattice)
    assert back.known.mean() > 0.8
    np.testing.assert_allclose(back.u[:, back.known], truth.u[:, back.known], atol=1e-7)


@pytest.mark.parametrize("stride", [1.0, 7.0, 300.0])
def test_any_target_lattice(stride):
    """A shear of more than one cell per cell, on nodes finer and coarser than the source's."""
    source = lattice_of((40, 40), 20.0, -33.0)
    matrix = np.array([[1, 1.7, -500.0], [0, 1, 100.0], [0, 0, 1]])
    target = Lattice((203.5, 201.25), (stride, stride), (3, 3) if stride > 100 else (30, 30))
    back = invert(from_affine(matrix, source), target)
    truth = from_affine(np.linalg.inv(matrix), target)
    places = target.nodes() + truth.u
    inside = ((places >= -33) & (places <= 39 * 20 - 33)).all(axis=0)
    assert inside.any()
    np.testing.assert_array_equal(back.known, inside)
    np.testing.assert_allclose(back.u[:, inside], truth.u[:, inside], atol=1e-6)


def test_a_bilinear_cell_is_inverted_exactly():
    """One badly distorted cell: the node's place in it, put back into the bilinear formula."""
    corners = np.array([[[0, 3.0], [22, 17.0]], [[1, 19.0], [-2, 24.0]]])  # [component, y, x]
    source = lattice_of((2, 2), 20.0)
    m = on_lattice(corners - source.nodes(), source)
    target = lattice_of((25, 25), 1.0)
    back = invert(m, target)
    y, x = (target.nodes() + back.u)[:, back.known] / 20
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])
    np.testing.assert_allclose(
        corners.reshape(2, 4) @ weights, target.nodes()[:, back.known], atol=1e-6
    )
    ring = corners[:, [0, 0, 1, 1], [0, 1, 1, 0]]  # the outline's area by the shoelace formula
    y, x = ring
    area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    assert abs(back.known.sum() - area) < 25


def test_nothing_known():
    m = identity(lattice_of((4, 4), 1.0), (2,))
    m.u[:, 0] = np.nan
    back = invert(m)
    assert not back.known[0].any()
    assert back.known[1].all()
