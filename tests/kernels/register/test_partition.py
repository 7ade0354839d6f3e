import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.register.partition import blend, ramp

AT = tuple(8.0 * np.arange(n) for n in (5, 6, 12))
SHAPE = (5, 6, 12)


def part(first, last, value):
    """A chunk of columns first to last - 1 that says `value` everywhere."""
    nodes = Box((0, 0, first), (5, 6, last))
    region = Box((-50, -50, 8 * first), (100, 100, 8 * (last - 1) + 1))
    return nodes, np.full((3, *nodes.shape), value), ramp(nodes, region, 16.0, AT)


def test_weights_fall_to_the_rim_and_not_below():
    _, _, weight = part(0, 7, 1.0)
    along = weight[2, 2]
    assert along[3] == 1
    np.testing.assert_allclose(along[[0, 1, 2]], [1 / 17, 9 / 17, 1])
    np.testing.assert_allclose(along, along[::-1])


def test_chunks_that_agree_are_not_changed():
    found = blend([part(0, 7, 2.5), part(4, 12, 2.5)], SHAPE)
    np.testing.assert_allclose(found.offsets, 2.5)
    assert np.nanmax(found.disagreement) < 1e-12


def test_chunks_that_differ_pass_into_one_another():
    found = blend([part(0, 7, 0.0), part(4, 12, 1.0)], SHAPE)
    along = found.offsets[0, 2, 2]
    assert along[0] == 0
    assert along[-1] == 1
    assert (np.diff(along) >= -1e-12).all()
    assert np.isfinite(found.disagreement[2, 2]).sum() == 3  # columns 4, 5 and 6
    np.testing.assert_allclose(np.nanmax(found.disagreement), np.sqrt(3) / 2, rtol=0.05)


def test_a_missing_neighbour_leaves_the_weight_to_those_that_are_there():
    found = blend([part(0, 7, 3.0)], SHAPE)
    np.testing.assert_allclose(found.offsets[..., :7], 3.0)
    assert np.isnan(found.offsets[..., 7:]).all()
