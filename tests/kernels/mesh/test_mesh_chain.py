import numpy as np
import pytest

from warpbeam.kernels.mesh.chain import ChainSettings, Status, solve_chain
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.folds import Limits, Shape, relax_unfolded

STRIDE = (40.0, 40.0)
N = 16
SHEET = Elasticity(STRIDE, bending_px=100.0)
SETTINGS = ChainSettings()
NODES = 40.0 * np.mgrid[:N, :N]


def affine(section):
    """The true map of a section: linear, so that interpolation between nodes is exact."""
    rng = np.random.default_rng(section)
    matrix = np.eye(2) + rng.normal(0, 0.004, (2, 2)) * (section > 0)
    return matrix, rng.normal(0, 6, 2) * (section > 0)


def mesh_of(section):
    matrix, shift = affine(section)
    return np.tensordot(matrix, NODES, 1) + shift[:, None, None] - NODES


def flow_of(section, reference):
    matrix, shift = affine(section)
    back, before = affine(reference)
    reached = np.tensordot(matrix, NODES, 1) + (shift - before)[:, None, None]
    return np.tensordot(np.linalg.inv(back), reached, 1) - NODES


def flows_of(pairs, noise=0.0):
    rng = np.random.default_rng(0)
    return {pair: flow_of(*pair) + rng.normal(0, noise, (2, N, N)) for pair in pairs}


def worst(section, number):
    return np.abs(section.offsets - mesh_of(number)).max()


def test_a_chain_recovers_every_map():
    flows = flows_of([(z, z - 1) for z in range(1, 8)])
    found = solve_chain(range(8), flows, SHEET, SETTINGS)
    assert list(found) == list(range(8))
    assert found[0].status == Status.START
    for z in range(1, 8):
        assert found[z].status == Status.REGULAR
        assert found[z].references == (z - 1,)
        assert worst(found[z], z) < 0.02


def test_backwards_and_from_a_given_start():
    flows = flows_of([(z, z + 1) for z in range(5)])
    found = solve_chain(range(5, -1, -1), flows, SHEET, SETTINGS, starts={5: mesh_of(5)})
    assert all(worst(found[z], z) < 0.02 for z in range(6))


@pytest.mark.parametrize("fault", ["missing", "noise"])
def test_a_bad_section_is_found_and_bridged(fault):
    pairs = [(z, z - k) for z in range(1, 8) for k in (1, 2) if z >= k]
    flows = flows_of(pairs, noise=0.1)
    rng = np.random.default_rng(1)
    for pair in pairs:
        if 4 in pair:
            flows[pair] = rng.normal(0, 12, (2, N, N)) if fault == "noise" else np.full((2, N, N), np.nan)  # fmt: skip # noqa: E501
    found = solve_chain(range(8), flows, SHEET, SETTINGS)
    assert found[4].status == Status.BRIDGED
    assert found[4].references == (3, 5)
    np.testing.assert_allclose(found[4].offsets, (found[3].offsets + found[5].offsets) / 2)
    assert found[5].references == (3,)
    assert found[6].references == (5,)
    for z in (1, 2, 3, 5, 6, 7):
        assert found[z].status == Status.REGULAR
        assert worst(found[z], z) < 1.0


def test_skipped_ranges_serve_nobody_but_are_solved():
    pairs = [(1, 0), (2, 1), (3, 2), (4, 3), (4, 1), (5, 4), (2, 4), (3, 4)]
    flows = flows_of(pairs)
    for pair in ((4, 3), (3, 2)):
        flows[pair] = flows[pair] + 20  # believing it would show
    found = solve_chain(range(6), flows, SHEET, SETTINGS, skipped={2, 3})
    assert found[4].references == (1,)
    assert found[2].references == (1, 4)
    assert found[3].references == (4,)
    assert all(worst(found[z], z) < 0.03 for z in range(6))


def test_blocks_do_not_see_each_other():
    flows = flows_of([(z, z - k) for z in range(1, 6) for k in (1, 2) if z >= k])
    found = solve_chain(range(6), flows, SHEET, SETTINGS, starts={3: np.zeros((2, N, N))})
    assert found[3].status == Status.START
    assert not found[3].offsets.any()
    assert found[4].references == (3,)
    np.testing.assert_allclose(found[4].offsets, flows[4, 3], atol=0.02)


def test_a_broken_chain_goes_on_as_a_new_piece():
    flows = flows_of([(z, z - 1) for z in range(1, 7)])
    flows[3, 2] = np.full((2, N, N), np.nan)
    found = solve_chain(range(7), flows, SHEET, SETTINGS)
    assert found[3].status == Status.UNCONNECTED
    np.testing.assert_array_equal(found[3].offsets, found[2].offsets)
    assert [found[z].status for z in (4, 5, 6)] == [Status.REGULAR] * 3


def test_masked_nodes_stay_unknown_and_spoil_nothing():
    flows = flows_of([(1, 0), (2, 1)])
    active = np.ones((N, N), bool)
    active[5:8, 5:9] = False
    found = solve_chain(range(3), flows, SHEET, SETTINGS, active={1: active})
    assert (np.isnan(found[1].offsets[0]) == ~active).all()
    assert worst(found[2], 2) < 0.02
    assert 0.8 < found[2].known < 1


def test_bad_chains():
    flows = flows_of([(1, 0)])
    with pytest.raises(ValueError, match="each once"):
        solve_chain([0, 1, 1], flows, SHEET, SETTINGS)
    with pytest.raises(ValueError, match="one shape"):
        solve_chain([0, 1], flows, SHEET, SETTINGS, starts={0: np.zeros((2, 3, 3))})


def squeezed(peak):
    """Targets that converge on a line: a fold where they exceed the stride."""
    target = np.zeros((2, N, N))
    target[1] = -peak * np.tanh((np.arange(N) - 7.5) / 0.7)
    return target[None]


def test_a_fold_is_solved_again_stiffer():
    soft = Elasticity(STRIDE, bending_px=60.0)
    mesh, shape = relax_unfolded(squeezed(30), soft, Limits(retries=0))
    assert shape == Shape.FOLDED
    mesh, shape = relax_unfolded(squeezed(30), soft, Limits())
    assert shape == Shape.STIFFENED
    assert (40 + np.diff(mesh.offsets[1], axis=1)).min() > 0.5 * 40
    _, shape = relax_unfolded(squeezed(5), soft, Limits())
    assert shape == Shape.REGULAR


def test_a_fold_that_no_retry_removes_is_named():
    target = np.zeros((1, 2, N, N))
    target[0, 1] = -80.0 * np.arange(N)  # the whole section is mirrored
    _, shape = relax_unfolded(target, SHEET, Limits())
    assert shape == Shape.FOLDED
    found = solve_chain([0, 1], {(1, 0): squeezed(30)[0]}, Elasticity(STRIDE, bending_px=60.0), SETTINGS)  # fmt: skip # noqa: E501
    assert found[1].status == Status.STIFFENED


def test_a_folded_reference_says_nothing_about_its_folds():
    soft = Elasticity(STRIDE, bending_px=60.0)
    flows = {(1, 0): squeezed(30)[0], (2, 1): np.zeros((2, N, N))}
    found = solve_chain(range(3), flows, soft, ChainSettings(limits=Limits(retries=0, radius=1)))
    assert found[1].status == Status.FOLDED
    assert 0.5 < found[2].known < 0.9
    assert (40 + np.diff(found[2].offsets[1], axis=1)).min() > 0
