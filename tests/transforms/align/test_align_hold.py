import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import from_affine, identity
from warpbeam.transforms.align.redone import Hold

TURN = np.array([[0.0, -1.0, 50.0], [1.0, 0.0, -7.0], [0.0, 0.0, 1.0]])
SHIFT = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])


def test_a_turn_goes_on_beyond_the_held_section():
    small = Lattice((0.0, 0.0), (20.0, 20.0), (5, 6))
    wide = Lattice((-200.0, -240.0), (20.0, 20.0), (27, 25))
    held = Hold(from_affine(SHIFT, small), TURN, from_affine(SHIFT, small))
    got = held.follow(identity(wide)).absolute
    once = wide.nodes().reshape(2, -1).T + SHIFT[:, 2]
    expected = affine.apply(TURN, once) + SHIFT[:, 2]
    np.testing.assert_allclose(got.reshape(2, -1).T, expected, atol=1e-9)
