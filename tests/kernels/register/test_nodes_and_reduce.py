import numpy as np

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.register.nodes import for_straight_lines
from warpbeam.kernels.register.reduce import mean_of_known


def test_straight_lines_run_nearer_to_a_smooth_field():
    lattice = Lattice((0.0,) * 3, (8.0,) * 3, (9, 9, 9))
    points = np.random.default_rng(0).uniform(16, 48, (3, 500))

    def field(p):
        return 3 * np.sin(p / 24) + np.cos(p[[1, 2, 0]] / 24)

    apart = []
    for u in (field(lattice.nodes()), for_straight_lines(field(lattice.nodes()))):
        found = offsets_at(CoordinateMap(u, lattice.origin, lattice.stride), points)
        apart.append(np.sqrt(((found - field(points)) ** 2).mean()))
    assert apart[1] < 0.55 * apart[0]


def test_linear_fields_and_rims_stay():
    u = np.random.default_rng(0).normal(size=(3, 1, 1, 1)) * np.indices((4, 5, 6))
    np.testing.assert_allclose(for_straight_lines(u), u, atol=1e-12)


def test_blocks_are_averaged_over_what_is_known():
    volume = np.arange(4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5)
    volume[0, 0, 0] = np.nan
    volume[2:, 0, :2] = np.nan
    volume[2:, 1, 0] = np.nan
    found = mean_of_known(volume, (2, 2, 2))
    assert found.shape == (2, 3, 3)
    np.testing.assert_allclose(found[0, 0, 0], np.nanmean(volume[:2, :2, :2]))
    assert np.isnan(found[1, 0, 0])  # three quarters of the block are unknown
    np.testing.assert_allclose(found[0, 1, 1], volume[:2, 2:4, 2:4].mean())
    np.testing.assert_allclose(found[1, 2, 2], volume[2:, 4:, 4:].mean())  # half is there


def test_factors_differ_by_axis():
    volume = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    found = mean_of_known(volume, (1, 4, 2))
    np.testing.assert_allclose(found, volume.reshape(3, 2, 4, 4, 2).mean(axis=(2, 4)), atol=1e-6)
