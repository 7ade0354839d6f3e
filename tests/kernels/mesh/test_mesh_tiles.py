"""Meshes of several tiles: closed forms, known truth, outliers, and what is left alone."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.mesh import tiles
from warpbeam.kernels.mesh.tiles import PointPairs, relax_tiles

SIDE, STEP, STRIDE = 240, 160, 20
LATTICE = Lattice((0.0, 0.0), (float(STRIDE),) * 2, (13, 13))


def wave(seed, amplitude=3.0):
    """A smooth displacement of a tile (yx, px), up to 1.5 cycles over it."""
    rng = np.random.default_rng(seed)
    k, phase = rng.uniform(-1.5, 1.5, (2, 3, 2)), rng.uniform(0, 2 * np.pi, (2, 3))

    def at(points):
        angles = 2 * np.pi * np.einsum("ckd,nd->nck", k, points) / SIDE + phase
        return amplitude / 3 * np.sin(angles).sum(axis=2)

    return at


def grid_of(rows, columns):
    return np.array([(r * STEP, c * STEP) for r in range(rows) for c in range(columns)], float)


def pairs_of(places, truth, *, noise=0.0, seed=0, links=None):
    """Pairs on the nodes of the first tile; `truth(tile)` says where the world has a point."""
    rng = np.random.default_rng(seed)
    nodes = LATTICE.nodes().reshape(2, -1).T
    rows = []
    for a in range(len(places)):
        for b in range(a + 1, len(places)):
            if links is not None and (a, b) not in links:
                continue
            world = places[a] + nodes + truth[a](nodes)
            q = world - places[b]
            for _ in range(20):  # the point of b that shows the same
                q = world - places[b] - truth[b](q)
            q = q + rng.normal(0, noise, q.shape)
            inside = ((q >= 0) & (q <= SIDE)).all(axis=1)
            p, q = nodes[inside], q[inside]
            rows.append(
                (np.full(len(p), a), np.full(len(p), b), p, q, p + places[a] - q - places[b])
            )
    first, second, p, q, apart = (np.concatenate(column) for column in zip(*rows, strict=True))
    return PointPairs(first, second, p, q, apart, np.ones(len(first)))


def relaxed(count, pairs, **more):
    settings = {"bending_px": 40.0, "anchor": 1e-4, **more}
    return relax_tiles([LATTICE] * count, pairs, **settings)


def seam_errors(places, truth, found, *, every=5):
    """How far apart two tiles draw the same output point, in the world of the truth."""
    points = np.stack(np.mgrid[: 2 * STEP + SIDE : every, : 2 * STEP + SIDE : every], -1)
    points = points.reshape(-1, 2).astype(float)
    seen = []
    for place, field, move in zip(places, found.offsets, truth, strict=True):
        p = points - place
        for _ in range(20):
            p = points - place - interpolated(field, p)
        inside = ((p >= 0) & (p <= SIDE)).all(axis=1)
        seen.append(np.where(inside[:, None], place + p + move(p), np.nan))
    apart = [np.linalg.norm(a - b, axis=1) for i, a in enumerate(seen) for b in seen[:i]]
    every_pair = np.concatenate(apart)
    return every_pair[np.isfinite(every_pair)]


def interpolated(field, points):
    index = np.clip(points / STRIDE, 0, 12)
    low = np.minimum(index.astype(int), 11)
    y, x = (index - low).T
    (i, j) = low.T
    return (
        field[:, i, j] * (1 - y) * (1 - x) + field[:, i + 1, j] * y * (1 - x)
        + field[:, i, j + 1] * (1 - y) * x + field[:, i + 1, j + 1] * y * x
    ).T  # fmt: skip


def still(points):
    return np.zeros_like(points)


def test_a_shift_is_shared_by_both_tiles():
    places = grid_of(1, 2)
    pairs = pairs_of(places, [still, lambda p: np.add(still(p), (2.0, -1.0))])
    found = relaxed(2, pairs, anchor=1e-6)
    for field, sign in zip(found.offsets, (-1, 1), strict=True):
        np.testing.assert_allclose(field.mean(axis=(1, 2)), [sign * 1.0, sign * -0.5], rtol=0.1)
        assert np.ptp(field, axis=(1, 2)).max() < 0.4  # a shift, not a turn or a stretch
    assert np.abs(found.apart).max() < 2e-3
    assert found.converged
    assert (found.kept > 0.9).all()


def test_a_stretched_tile_is_met_half_way_without_bending():
    """Both maps are affine, which bending leaves alone: what is left is the anchor's doing."""
    places = grid_of(1, 2)
    pairs = pairs_of(places, [still, lambda p: 0.02 * (p - SIDE / 2)])
    found = relaxed(2, pairs, anchor=1e-6, bending_px=400.0)
    assert np.abs(found.apart).max() < 5e-3
    for field in found.offsets:
        assert np.abs(np.diff(field, 2, axis=1)).max() < 1e-3
        assert np.abs(np.diff(field, 2, axis=2)).max() < 1e-3


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 2), (3, 3)])
def test_bent_tiles_meet(rows, columns):
    places = grid_of(rows, columns)
    truth = [wave(seed) for seed in range(len(places))]
    before = seam_errors(places, truth, relaxed(len(places), no_pairs()))
    pairs = pairs_of(places, truth, noise=0.05)
    after = seam_errors(places, truth, relaxed(len(places), pairs))
    assert np.median(before) > 1.5
    assert np.median(after) < 0.15
    assert np.percentile(after, 95) < 0.6


def no_pairs():
    none = np.empty(0, np.int64)
    return PointPairs(none, none, np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 2)), np.empty(0))


def test_without_pairs_nothing_moves():
    found = relaxed(3, no_pairs())
    assert all((field == 0).all() for field in found.offsets)
    assert found.converged


def test_a_tile_without_pairs_stays_and_leaves_the_others_alone():
    places = grid_of(2, 2)
    truth = [wave(seed) for seed in range(4)]
    pairs = pairs_of(places[:3], truth[:3])
    without, with_it = relaxed(3, pairs), relaxed(4, pairs)
    assert (with_it.offsets[3] == 0).all()
    for a, b in zip(without.offsets, with_it.offsets[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=3e-3)


def test_missing_pairs_are_bridged_smoothly():
    places = grid_of(1, 2)
    truth = [wave(7), wave(8)]
    whole = pairs_of(places, truth)
    hole = (np.abs(whole.p[:, 0] - 120) < 35) & (np.abs(whole.p[:, 1] - 200) < 35)
    assert 0.05 < hole.mean() < 0.3
    part = PointPairs(*(getattr(whole, f)[~hole] for f in whole.__dataclass_fields__))
    error = seam_errors(places, truth, relaxed(2, part))
    assert np.percentile(error, 95) < 0.6


def test_gross_outliers_lose():
    places = grid_of(2, 2)
    truth = [wave(seed) for seed in range(4)]
    pairs = pairs_of(places, truth, noise=0.05)
    rng = np.random.default_rng(5)
    wrong = rng.random(len(pairs)) < 0.05
    apart = pairs.apart + np.where(wrong[:, None], rng.uniform(-15, 15, pairs.apart.shape), 0)
    bad = PointPairs(pairs.first, pairs.second, pairs.p, pairs.q, apart, pairs.weight)
    found = relaxed(4, bad)
    far = wrong & (np.linalg.norm(apart - pairs.apart, axis=1) > 2)
    assert (found.kept[far] < 0.1).all()
    assert np.median(found.kept[~wrong]) > 0.7
    assert np.percentile(seam_errors(places, truth, found), 95) < 0.4


def test_a_loop_shares_its_contradiction():
    """Four shifts around a loop that do not add up: no link takes more than another."""
    places = grid_of(2, 2)
    ring = {(0, 1): 1, (1, 3): 1, (2, 3): -1, (0, 2): -1}
    pairs = pairs_of(places, [still] * 4, links=ring)
    apart = np.where((pairs.first == 0) & (pairs.second == 1), 0.4, 0.0)[:, None] * [1.0, 0.0]
    found = relaxed(
        4, PointPairs(pairs.first, pairs.second, pairs.p, pairs.q, apart, pairs.weight),
        anchor=1e-6, bending_px=1e4, least_scale_px=10.0,
    )  # fmt: skip
    left = np.array([
        sign * found.apart[(pairs.first == a) & (pairs.second == b)].mean(axis=0)
        for (a, b), sign in ring.items()
    ])  # fmt: skip
    np.testing.assert_allclose(left, np.broadcast_to(left.mean(axis=0), left.shape), atol=0.01)
    assert 0.03 < left[0, 0] <= 0.1


def test_large_montages_are_solved_by_steps_to_the_same_end(monkeypatch):
    places = grid_of(3, 3)
    truth = [wave(seed) for seed in range(9)]
    pairs = pairs_of(places, truth, noise=0.05)
    direct = relaxed(9, pairs)
    monkeypatch.setattr(tiles, "_DIRECT_NODES", 0)
    steps = relaxed(9, pairs)
    assert steps.converged
    np.testing.assert_allclose(steps.apart, direct.apart, atol=0.02)
    for a, b in zip(direct.offsets, steps.offsets, strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)


def test_the_same_input_gives_the_same_bits():
    places = grid_of(2, 2)
    pairs = pairs_of(places, [wave(seed) for seed in range(4)], noise=0.05)
    one, two = relaxed(4, pairs), relaxed(4, pairs)
    assert all((a == b).all() for a, b in zip(one.offsets, two.offsets, strict=True))


def test_blocks_in_space():
    lattice = Lattice((0.0,) * 3, (10.0, 20.0, 20.0), (4, 7, 7))
    nodes = lattice.nodes().reshape(3, -1).T
    p = nodes[nodes[:, 2] >= 60]
    apart = np.tile([0.5, -1.0, 1.5], (len(p), 1))
    numbers = np.zeros(len(p), int)
    pairs = PointPairs(numbers, numbers + 1, p, p - (0, 0, 60), apart, np.ones(len(p)))
    found = relax_tiles([lattice] * 2, pairs, bending_px=40.0, anchor=1e-6)
    assert np.abs(found.apart).max() < 5e-3
    np.testing.assert_allclose(found.offsets[1].mean(axis=(1, 2, 3)), [0.25, -0.5, 0.75], atol=0.03)


def test_what_cannot_be_solved_is_refused():
    places = grid_of(1, 2)
    pairs = pairs_of(places, [still, still])
    with pytest.raises(ValueError, match="drift"):
        relaxed(2, pairs, anchor=0.0)
    with pytest.raises(ValueError, match="name tiles"):
        relaxed(1, pairs)
    with pytest.raises(ValueError, match="not finite"):
        PointPairs(pairs.first, pairs.second, pairs.p, pairs.q * np.nan, pairs.apart, pairs.weight)
