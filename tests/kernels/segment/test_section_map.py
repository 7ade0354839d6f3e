"""The map between sections: a known displacement is found, and nothing is made up."""

import numpy as np
from phantoms import Waves

from warpbeam.kernels.flow.field import FlowSettings
from warpbeam.kernels.segment.section_map import section_map

SETTINGS = FlowSettings((40, 40), (10, 10), (16, 16), steps=3)
SIDE = 160
GRID = np.stack(np.mgrid[:SIDE, :SIDE], -1).astype(float)


def bend(points):
    return 6 * np.sin(2 * np.pi * points[..., ::-1] / 120 + np.array([0.3, 1.0]))


def test_a_known_bend_is_found():
    truth = Waves.random(3, wavelengths=(8, 40), count=60)
    m = section_map(truth.at(GRID + bend(GRID)), truth.at(GRID), SETTINGS)
    nodes = m.lattice.nodes()
    inside = ((nodes >= 15) & (nodes <= SIDE - 16)).all(axis=0)
    expected = np.moveaxis(bend(np.moveaxis(nodes, 0, -1)), -1, 0)
    apart = np.linalg.norm(m.u - expected, axis=0)[inside]
    assert np.median(apart) < 0.3
    assert np.quantile(apart, 0.95) < 1.0


def test_sections_that_do_not_resemble_each_other_are_left_as_they_lie():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, SIDE, SIDE))
    assert np.abs(section_map(first, second, SETTINGS).u).max() < 16
    blank = np.full((SIDE, SIDE), 7.0)
    assert not section_map(blank, second, SETTINGS).u.any()
    assert not section_map(blank, blank, SETTINGS).u.any()
