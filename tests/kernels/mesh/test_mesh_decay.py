import itertools

import numpy as np
import pytest

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.mesh.chain import ChainSettings, solve_chain
from warpbeam.kernels.mesh.decay import Decay
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.gauss_newton import relax

STRIDE = (20.0, 20.0)


def lattice_of(shape):
    return Lattice((0.0, 0.0), STRIDE, shape)


def bent(shape, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.arange(n) * 20.0 for n in shape), indexing="ij")
    waves = [np.sin(rng.normal(size=2) @ [y.ravel(), x.ravel()] / 60 + k) for k in range(4)]
    return 3 * np.stack([waves[0] + waves[1], waves[2] + waves[3]]).reshape(2, *shape)


def nth(decay, start, n):
    return next(itertools.islice(decay.follow(start), n, None))


@pytest.mark.parametrize("gaps", [(1,), (1, 2)])
def test_it_is_what_sheets_one_after_the_other_make(gaps):
    start, elasticity = bent((21, 24)), Elasticity(STRIDE, bending_px=120.0)
    weight = np.full((21, 24), 0.7 * len(gaps))
    weight[:5] = weight[12:15, 3:9] = 0.0  # no flow there
    decay = Decay(lattice_of((21, 24)), elasticity, gaps, weight)
    done = dict.fromkeys(range(max(gaps)), start)
    for z in range(max(gaps), 9):
        mean = np.mean([done[z - gap] for gap in gaps], axis=0)
        done[z] = relax(mean, elasticity, weight=weight).offsets
        got = nth(decay, start, z - max(gaps) + 1)
        np.testing.assert_allclose(got, done[z], atol=2e-3)
    assert np.abs(done[8] - start).max() > 1


def test_what_bending_leaves_alone_stays():
    y, x = np.meshgrid(np.arange(12) * 20.0, np.arange(9) * 20.0, indexing="ij")
    affine = np.stack([5.0 + 0.02 * y - 0.01 * x, 0.03 * y - 3.0])
    decay = Decay(lattice_of((12, 9)), Elasticity(STRIDE, bending_px=200.0), (1,), np.ones((12, 9)))
    np.testing.assert_allclose(nth(decay, affine, 40), affine, atol=1e-6)


def test_the_first_is_the_mesh_itself():
    decay = Decay(lattice_of((6, 7)), Elasticity(STRIDE, bending_px=90.0), (1, 2), np.ones((6, 7)))
    np.testing.assert_array_equal(nth(decay, bent((6, 7)), 0), bent((6, 7)))


def test_a_large_lattice_is_followed_on_a_coarser_one():
    shape, elasticity = (260, 30), Elasticity(STRIDE, bending_px=400.0)
    y, x = np.meshgrid(*(np.arange(n) * 20.0 for n in shape), indexing="ij")
    start = 4 * np.stack([np.sin(y / 400) + np.cos(x / 300), np.cos(y / 500)])
    got = nth(Decay(lattice_of(shape), elasticity, (1,), np.ones(shape)), start, 3)
    expected = start
    for _ in range(3):
        expected = relax(expected, elasticity).offsets
    assert np.abs(got - expected).max() < 0.1
    assert np.abs(expected - start).max() > 0.25


def test_a_robust_chain_fades_as_well():
    start = bent((15, 15))
    flows = {(z, z - 1): np.zeros_like(start) for z in range(1, 6)}
    elasticity = Elasticity(STRIDE, bending_px=80.0)
    chain = solve_chain(range(6), flows, elasticity, ChainSettings(), starts={0: start})
    expected = nth(Decay(lattice_of((15, 15)), elasticity, (1,), chain[5].pull), start, 5)
    assert np.abs(chain[5].offsets - expected).max() < 0.3
