"""Filling of gaps."""

import numpy as np
import pytest
from phantoms import Waves

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import from_affine, identity, on_lattice
from warpbeam.kernels.maps.fill import fill_missing, fill_nearest


def affine_map(ndim, shape, stride):
    rng = np.random.default_rng(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:ndim] += rng.uniform(-0.1, 0.1, (ndim, ndim + 1))
    return from_affine(matrix, Lattice((5.0,) * ndim, stride, shape))


@pytest.mark.parametrize(
    ("shape", "stride"), [((20, 25), (10.0, 30.0)), ((7, 9, 8), (4.0, 8.0, 8.0))]
)
def test_affine_maps_are_continued(shape, stride):
    truth = affine_map(len(shape), shape, stride)
    u = truth.u.copy()
    u[:, np.random.default_rng(0).random(shape) < 0.5] = np.nan
    u[(slice(None), *[slice(2, 6)] * len(shape))] = np.nan
    u[(slice(None), ..., slice(-2, None))] = np.nan
    gappy = truth.with_offsets(u)
    filled = fill_missing(gappy, outside="smooth")
    np.testing.assert_allclose(filled.u, truth.u, atol=0.02)
    np.testing.assert_array_equal(filled.u[:, gappy.known], u[:, gappy.known])
    inside = fill_missing(gappy)
    assert np.isnan(inside.u[..., -2:]).all()
    assert inside.known[..., 1:-3].mean() > 0.9
    np.testing.assert_allclose(inside.u[:, inside.known], truth.u[:, inside.known], atol=0.02)


def test_the_smooth_fill_beats_the_nearest_node():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (60, 60))
    waves = [Waves.random(k, wavelengths=(200, 500), spread=10) for k in range(2)]
    nodes = lattice.nodes().reshape(2, -1).T
    truth = on_lattice(np.stack([w.at(nodes) - w.mean for w in waves]).reshape(2, 60, 60), lattice)
    u = truth.u.copy()
    gap = np.zeros((60, 60), bool)
    gap[20:28, 30:38] = True
    u[:, gap] = np.nan
    gappy = truth.with_offsets(u)
    smooth, near = fill_missing(gappy), fill_nearest(gappy)
    error = [np.sqrt(np.mean((m.u - truth.u)[:, gap] ** 2)) for m in (smooth, near)]
    assert error[0] < 0.15 * error[1]


def test_outside_the_hull():
    m = identity(Lattice((0.0, 0.0), (10.0, 40.0), (5, 6)))
    m.u[:] = np.nan
    m.u[:, 1, 1], m.u[:, 1, 3], m.u[:, 3, 1] = 1, 5, 9
    hull = np.zeros((5, 6), bool)
    hull[1, 1:4] = hull[2, 1:3] = hull[3, 1] = True
    np.testing.assert_array_equal(fill_missing(m).known, hull)
    nearest = fill_missing(m, outside="nearest").u[0]
    assert nearest[1, 5] == 5
    assert nearest[4, 1] == 9
    # (0, 1) is 10 from a 1; distances count in voxels: (4, 2) is 41 from (3, 1), 70 from a 5
    assert nearest[0, 1] == 1
    np.testing.assert_allclose(nearest[2, 1], 5, atol=1e-3)  # half-way from 1 to 9


def test_little_to_go_by():
    lattice = Lattice((0.0, 0.0), (1.0, 1.0), (6, 7))
    m = identity(lattice, (3,))
    m.u[:, :2] = np.nan
    m.u[:, 1, 2, 3] = 4
    np.testing.assert_array_equal(fill_missing(m, empty=0.0).u[:, 0], 0)
    assert np.isnan(fill_missing(m).u[:, 0]).all()
    assert fill_missing(m).known[1].sum() == 1
    for outside in ("nearest", "smooth"):  # a single node says the same everywhere
        np.testing.assert_allclose(fill_missing(m, outside=outside).u[:, 1], 4, atol=1e-4)
    np.testing.assert_array_equal(fill_nearest(m).u[:, 0], 0)


def test_gaps_apart_are_independent():
    truth = affine_map(2, (30, 40), (10.0, 10.0))
    truth.u[:] = np.sin(truth.lattice.nodes() / 40)
    both, left = truth.u.copy(), truth.u.copy()
    both[:, 5:9, 5:9] = left[:, 5:9, 5:9] = np.nan
    both[:, 5:9, 20:24] = np.nan
    a, b = (fill_missing(truth.with_offsets(u)).u for u in (both, left))
    np.testing.assert_allclose(a[..., :15], b[..., :15], atol=1e-12)
    part = fill_missing(truth.with_offsets(left[:, :15, :15].copy())).u
    np.testing.assert_allclose(part, b[:, :15, :15], atol=1e-12)


def test_a_gap_around_another():
    truth = affine_map(2, (40, 40), (10.0, 10.0))
    u = truth.u + np.sin(truth.lattice.nodes() / 60)
    ring = np.zeros((40, 40), bool)
    ring[8:32, 8:32] = True
    ring[10:30, 10:30] = False
    island = np.zeros((40, 40), bool)
    island[17:23, 17:23] = True
    filled = []
    for gap in (ring, island, ring | island):
        gappy = u.copy()
        gappy[:, gap] = np.nan
        filled.append(fill_missing(truth.with_offsets(gappy)).u)
    np.testing.assert_allclose(filled[2][:, ring], filled[0][:, ring], atol=1e-9)
    np.testing.assert_allclose(filled[2][:, island], filled[1][:, island], atol=1e-9)


def test_a_huge_gap(monkeypatch):
    from warpbeam.kernels.maps import fill

    monkeypatch.setitem(fill._PLATE_LIMIT, 2, 100)
    truth = affine_map(2, (40, 40), (10.0, 10.0))
    u = truth.u.copy()
    u[:, 5:35, 5:35] = np.nan
    filled = fill_missing(truth.with_offsets(u))
    np.testing.assert_allclose(filled.u, truth.u, atol=0.05)  # affine maps are harmonic
