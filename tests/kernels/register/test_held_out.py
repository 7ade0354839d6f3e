import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from warpbeam.kernels.register.held_out import clumps, held_out

STRIDE = (8.0, 8.0, 8.0)


def smooth_offsets(nodes):
    z, y, x = np.meshgrid(*map(np.arange, nodes), indexing="ij")
    return np.stack([0.1 * z + 0.02 * y, np.sin(x / 12), np.cos((y + z) / 15)]).astype(float)


def unit_information(nodes):
    return np.broadcast_to(np.eye(3).reshape(3, 3, 1, 1, 1), (3, 3, *nodes)).copy()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_clumps_are_three_nodes_wide_and_apart(nodes):
    out, middle = clumps(tuple(nodes))
    assert middle.any()
    grown = ndimage.maximum_filter(middle, size=3)
    np.testing.assert_array_equal(out, grown)
    assert ndimage.label(out, np.ones((3,) * len(nodes)))[1] == middle.sum()


def test_a_smooth_field_predicts_what_it_did_not_see():
    nodes = (13, 16, 16)
    found = held_out(smooth_offsets(nodes), unit_information(nodes), STRIDE, bending_px=30.0)
    assert np.isfinite(found).sum() == clumps(nodes)[1].sum()
    assert np.nanmax(found) < 0.05


def test_noise_of_matches_is_seen_though_a_soft_field_follows_it():
    nodes = (13, 19, 19)
    noise = np.random.default_rng(0).normal(0, 0.5, (3, *nodes))
    target = smooth_offsets(nodes) + noise
    found = held_out(target, unit_information(nodes), STRIDE, bending_px=10.0)
    seen = found[np.isfinite(found)]
    # a vector of three such errors, and no less because the field bends to its own matches
    assert np.median(seen) > 0.9 * np.median(np.linalg.norm(noise, axis=0))


def test_a_lattice_that_is_left_out_whole_says_nothing():
    nodes = (1, 2, 3)
    found = held_out(smooth_offsets(nodes), unit_information(nodes), STRIDE, bending_px=30.0)
    assert np.isnan(found).all()
