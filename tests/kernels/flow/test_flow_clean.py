"""Cleaning and combining flows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.flow.clean import CleanSettings, trusted, within_deviation
from warpbeam.kernels.flow.components import large_components
from warpbeam.kernels.flow.field import Flow
from warpbeam.kernels.flow.neighbours import nan_median, outliers
from warpbeam.kernels.flow.reconcile import ReconcileSettings, on_lattice, reconcile
from warpbeam.kernels.flow.smooth import smooth_vectors, support
from warpbeam.kernels.geometry.lattice import Lattice


def flow_of(vectors, ratio=np.inf, sharpness=np.inf):
    nodes = vectors.shape[1:]
    lattice = Lattice((0.0,) * len(nodes), (1.0,) * len(nodes), nodes)
    full = [np.broadcast_to(np.float32(v), nodes).astype(np.float32) for v in (1, ratio, sharpness)]
    return Flow(lattice, vectors.astype(np.float32), *full)


def test_sofimas_cleaning_case():
    vectors = np.zeros((2, 50, 40))
    sharpness, ratio = np.full((50, 40), 2.0), np.full((50, 40), np.inf)
    sharpness[10, 20] = 1.2
    ratio[10, 22], ratio[10, 24] = 1.2, 1.6
    vectors[1, 5, 4], vectors[0, 5, 6] = 12, -14
    vectors[:, 5, 10], vectors[:, 15, 10] = 2, 7
    rules = CleanSettings(1.4, 1.6, max_magnitude=10.0, max_deviation=5.0)
    good = trusted(flow_of(vectors, ratio, sharpness), rules)
    assert sorted(map(tuple, np.argwhere(~good).tolist())) == [
        (5, 4),
        (5, 6),
        (10, 20),
        (10, 22),
        (15, 10),
    ]


@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-100, 100), missing=st.floats(0, 0.7), seed=st.integers(0, 999))
def test_a_global_shift_and_gaps_change_nothing(shift, missing, seed):
    """Medians that take NaN for 0 reject nearly all of a flow of 15 px with half of it missing."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 0.3, (2, 20, 20))
    vectors[:, rng.random((20, 20)) < missing] = np.nan
    rules = CleanSettings(max_magnitude=8.0, max_deviation=5.0)
    good = trusted(flow_of(vectors + shift), rules)
    np.testing.assert_array_equal(good, np.isfinite(vectors[0]))


def test_median_of_what_is_known():
    stack = np.random.default_rng(0).normal(size=(9, 50))
    stack[np.random.default_rng(1).random((9, 50)) < 0.5] = np.nan
    expected = [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else np.nan for c in stack.T]
    np.testing.assert_allclose(nan_median(stack), expected)


def test_outliers_stand_out_of_their_neighbours_scatter():
    y, x = np.mgrid[:12, :12]
    vectors = np.stack([0.3 * x + 5, 0.2 * y - 3]).astype(float)
    vectors[:, 4, 7] += 3
    assert np.argwhere(outliers(vectors, threshold=4.0)).tolist() == [[4, 7]]
    assert not within_deviation(vectors, 2.0)[4, 7]


def test_cleaning_refuses_several_flows_and_bad_limits():
    with pytest.raises(ValueError, match="one flow"):
        trusted(
            Flow(
                Lattice((0.0,) * 2, (1.0,) * 2, (3, 3)),
                np.zeros((4, 2, 3, 3), np.float32),
                *[np.zeros((4, 3, 3), np.float32)] * 3,
            ),
            CleanSettings(),
        )
    with pytest.raises(ValueError, match="max_deviation"):
        CleanSettings(max_deviation=0.0)


def volume(seed=0, shape=(5, 6, 7)):
    """A smooth 3-D flow, some of its vectors wild and some missing."""
    rng = np.random.default_rng(seed)
    vectors = 0.5 * np.indices(shape) + rng.normal(0, 0.2, (3, *shape)) + 20
    vectors[:, rng.random(shape) < 0.1] += rng.choice([-6, 6])
    vectors[:, rng.random(shape) < 0.2] = np.nan
    return vectors.astype(np.float32).astype(float)


def test_volumes_are_cleaned_node_by_node():
    """Each test counts what those before it left."""
    vectors, rng = volume(), np.random.default_rng(1)
    ratio, sharpness = rng.uniform(1, 5, (2, *vectors.shape[1:])).astype(np.float32)
    rules = CleanSettings(1.3, 1.2, max_magnitude=7.0, max_deviation=1.5)
    left = vectors.copy()
    left[:, (ratio < 1.3) | (sharpness < 1.2)] = np.nan
    middle = [np.median(v[np.isfinite(v)]) for v in left]
    left[:, (np.abs(left - np.reshape(middle, (3, 1, 1, 1))) > 7).any(axis=0)] = np.nan
    expected = np.isfinite(left[0])
    counts = [np.isfinite(vectors[0]).sum(), expected.sum()]
    for z, y, x in np.argwhere(expected):
        near = left[:, max(z - 1, 0) : z + 2, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        around = np.nanmedian(near.reshape(3, -1), axis=1)
        expected[z, y, x] = (np.abs(left[:, z, y, x] - around) <= 1.5).all()
    np.testing.assert_array_equal(trusted(flow_of(vectors, ratio, sharpness), rules), expected)
    assert counts[0] > counts[1] > expected.sum() > 20


def test_steps_and_pieces_of_volumes_count_along_z_too():
    """Two slabs that differ by a step lose the two planes at it; a lone column of the second flow
    is a piece of 3, a lone node one of 1."""
    first, second = np.full((3, 9, 6, 8), np.nan), np.full((3, 9, 6, 8), np.nan)
    first[:, :3, :, :4] = 2.0
    first[:, 3:, :, :4] = np.reshape([2, 2, 9], (3, 1, 1, 1))
    second[:, :, :, :4] = 50  # not looked at
    second[:, 4:7, 2, 6] = 3
    second[:, 8, 5, 7] = 3
    got, gap = reconcile(
        [first, second], ReconcileSettings(max_gradient=5.0, min_component=3),
        gaps=[np.full((9, 6, 8), 1), np.full((9, 6, 8), -2)],
    )  # fmt: skip
    expected = first.copy()
    expected[:, 2:4] = np.nan
    expected[:, 4:7, 2, 6] = 3
    np.testing.assert_array_equal(got, expected)
    assert set(np.unique(gap[:, :, :4])) == {0, 1}
    assert set(np.unique(gap[:, :, 4:])) == {0, -2}
    near, _ = reconcile(
        [first, second], ReconcileSettings(min_gap=3), gaps=[gap * 0 + 1, gap * 0 - 2]
    )
    np.testing.assert_array_equal(near, first)


def test_sofimas_reconciling_case():
    first, second, third = (np.full((2, 50, 40), np.nan) for _ in range(3))
    gaps = [np.zeros((50, 40), int) for _ in range(3)]
    first[:, 10, 10], gaps[0][10, 10] = 2, 2
    second[:, 10, 10], gaps[1][10, 10] = 3, 3
    third[:, 20, 20], gaps[2][20, 20] = 4, 4
    second[:, 20, 20], gaps[1][20, 20] = 1, 1
    second[:, 30:35, 30:35], gaps[1][30:35, 30:35] = 5, 5
    second[0, 32, 32] = 15
    got, gap = reconcile(
        [first, second, third], ReconcileSettings(max_deviation=8.0, min_gap=2), gaps=gaps
    )
    expected = np.full((2, 50, 40), np.nan)
    expected[:, 10, 10], expected[:, 20, 20], expected[:, 30:35, 30:35] = 2, 4, 5
    expected[:, 32, 32] = np.nan
    np.testing.assert_array_equal(got, expected)
    assert gap[10, 10] == 2
    assert gap[20, 20] == 4
    assert gap[32, 32] == 0


def test_gradients_count_along_every_axis_and_edges_do_not():
    vectors = np.full((2, 10, 10), 12.0)
    vectors[1, 6:] += 20
    got, _ = reconcile([vectors], ReconcileSettings(max_gradient=10.0))
    bad = np.isnan(got).any(axis=0)
    assert np.flatnonzero(bad.all(axis=1)).tolist() == [5, 6]
    assert bad.sum() == 20


def test_small_components_go():
    valid = np.zeros((12, 12), bool)
    valid[:3, :3], valid[6, 6:9], valid[9, 9] = True, True, True
    np.testing.assert_array_equal(np.argwhere(large_components(valid, 4)).max(axis=0), (2, 2))
    assert large_components(valid, 3).sum() == 12


def test_reconciling_refuses_other_shapes():
    with pytest.raises(ValueError, match="shapes differ"):
        reconcile([np.zeros((2, 3, 3)), np.zeros((2, 3, 4))], ReconcileSettings())
    with pytest.raises(ValueError, match="no flow"):
        reconcile([], ReconcileSettings())


def test_on_another_lattice_a_linear_flow_stays_itself():
    coarse = Lattice((10.0, 12.0), (40.0, 30.0), (6, 7))
    fine = Lattice((0.0, 0.0), (20.0, 20.0), (11, 11))
    linear = lambda at: np.stack([0.1 * at[0] - 0.05 * at[1] + 3, 0.02 * at[1]])  # noqa: E731
    vectors = linear(coarse.nodes())
    expected = linear(fine.nodes())
    np.testing.assert_allclose(on_lattice(vectors, coarse, fine), expected, atol=1e-12)
    vectors[:, 2, 3] = np.nan
    hole = np.isnan(on_lattice(vectors, coarse, fine)[0])
    apart = np.abs(fine.nodes() - np.array([90.0, 102.0])[:, None, None])
    np.testing.assert_array_equal(hole, (apart[0] <= 20) & (apart[1] <= 15))


@pytest.mark.parametrize("shape", [(9, 11), (6, 7, 8)])
def test_smoothing_keeps_quadratics_bridges_gaps_and_forgets_outliers(shape):
    rank = len(shape)
    at = np.indices(shape) - 4.0
    truth = np.stack([0.2 * at[0] * at[-1] + at[i] - 0.1 * at[i] ** 2 for i in range(rank)])
    rng = np.random.default_rng(0)
    vectors = truth.copy()
    vectors[:, rng.random(shape) < 0.15] = np.nan
    wild = rng.random(shape) < 0.04
    vectors[:, wild] = 30
    got = smooth_vectors(vectors, np.ones(shape), radius=2)
    gap = np.abs(got - truth).max(axis=0)
    assert np.isfinite(gap).all()
    assert np.median(gap) < 0.1
    assert gap[wild].max() < 3


def test_support_is_the_agreeing_part_of_what_was_measured():
    measured = np.ones((9, 9), bool)
    measured[:, 6:] = False
    agreeing = np.zeros((9, 9), bool)
    agreeing[:, :3] = True
    part = support(agreeing, measured, radius=2)
    np.testing.assert_array_equal(part[:, 0], 1)
    assert (np.diff(part, axis=1) <= 1e-12).all()
    np.testing.assert_array_equal(part[:, 5:], 0)
