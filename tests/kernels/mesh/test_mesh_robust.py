import numpy as np
import pytest

from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.gauss_newton import relax
from warpbeam.kernels.mesh.robust import relax_robust
from warpbeam.kernels.mesh.smoothing import best_bending, relax_smooth

STRIDE = (40.0, 40.0)


def truth_of(n):
    y, x = 80 + 40.0 * np.mgrid[:n, :n]
    return np.stack(
        [
            9.6 + 8 * np.sin(2 * np.pi * x / 512 + 1) * np.cos(2 * np.pi * y / 700),
            -7.2 + 8 * np.cos(2 * np.pi * (x + y) / 724),
        ]
    )


def errors(found, truth):
    size = np.linalg.norm(found - truth, axis=0)
    return np.median(size), np.percentile(size, 95)


@pytest.mark.parametrize("noise", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("related", [False, True])
def test_smoothing_is_never_worse_than_the_flow(noise, related):
    rng = np.random.default_rng(0)
    truth = truth_of(22)
    error = rng.normal(0, 1, truth.shape)
    if related:  # patches overlap, so that neighbours err alike
        error = sum(np.roll(error, (i, j), (1, 2)) for i in range(3) for j in range(3)) / 3
    flow = truth + noise * error
    found = relax_smooth(flow, STRIDE)
    raw, now = errors(flow, truth), errors(found.offsets, truth)
    assert now[0] <= raw[0] * (1.02 if related else 0.9)
    assert now[1] <= raw[1] * (1.02 if related else 0.9)


def test_missing_vectors_are_bridged():
    rng = np.random.default_rng(1)
    truth = truth_of(22)
    flow = truth + rng.normal(0, 0.5, truth.shape)
    flow[:, rng.random((22, 22)) < 0.3] = np.nan
    found = relax_smooth(flow, STRIDE)
    median, p95 = errors(found.offsets, truth)
    assert median <= 0.45
    assert p95 <= 1.0


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_gross_outliers_lose(share):
    rng = np.random.default_rng(2)
    truth = truth_of(22)
    flow = truth + rng.normal(0, 0.5, truth.shape)
    wrong = rng.random((22, 22)) < share
    flow[:, wrong] += rng.uniform(8, 40, (2, wrong.sum())) * rng.choice([-1, 1], (2, wrong.sum()))
    found = relax_smooth(flow, STRIDE)
    assert errors(found.offsets, truth)[1] <= 1.0
    assert not found.kept[wrong].any()
    assert (found.kept[~wrong] > 0).mean() > 0.97
    plain = relax(flow, Elasticity(STRIDE, bending_px=found.bending_px))
    assert errors(plain.offsets, truth)[1] > 2


def test_stiffness_follows_the_noise():
    rng = np.random.default_rng(3)
    truth, every = truth_of(32), np.ones((32, 32), bool)
    error = rng.normal(0, 1, truth.shape)
    chosen = [best_bending(truth + s * error, STRIDE, every) for s in (0.1, 0.4, 1.6)]
    assert chosen[0] < chosen[1] < chosen[2] < 512
    assert best_bending(error, STRIDE, every) > 1000


def test_of_several_references_the_wrong_one_loses():
    rng = np.random.default_rng(4)
    truth = truth_of(20)
    targets = truth + rng.normal(0, 0.2, (3, *truth.shape))
    targets[2, :, 5:15, 5:15] += 12
    targets[0, :, :3] = np.nan
    found = relax_robust(targets, Elasticity(STRIDE, bending_px=120.0))
    assert errors(found.offsets, truth)[1] < 0.5
    assert not found.kept[2, 5:15, 5:15].any()
    assert not found.kept[0, :3].any()
    assert 0.13 < found.scale_px < 0.2  # what is left, though no target is believed so well


def test_a_reference_without_any_target_is_allowed():
    truth = truth_of(12)
    targets = np.stack([truth, np.full_like(truth, np.nan)])
    found = relax_robust(targets, Elasticity(STRIDE, bending_px=100.0))
    assert errors(found.offsets, truth)[1] < 0.2
    with pytest.raises(ValueError, match="none of the 144 nodes"):
        relax_robust(np.full_like(targets, np.nan), Elasticity(STRIDE, 0.1))
    with pytest.raises(ValueError, match="weights of shape"):
        relax_robust(targets, Elasticity(STRIDE, 0.1), weight=np.ones((1, 12, 12)))
