from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.montage.solve import Correspondences, solve

PITCH = 90.0


def lattice(shape, rng, jitter):
    """Stage positions of a lattice of tiles, true ones, and the pairs of neighbours."""
    index = np.arange(np.prod(shape)).reshape(shape)
    pairs = []
    for axis in range(len(shape)):
        ends = np.moveaxis(index, axis, 0)
        pairs.append(np.stack([ends[:-1].ravel(), ends[1:].ravel()], axis=1))
    stage = np.stack(np.unravel_index(index.ravel(), shape), axis=1) * PITCH
    return stage, stage + rng.normal(0, jitter, stage.shape), np.concatenate(pairs)


def shifts(truth, pairs, error=0.0, information=None):
    """Links that know the shift between tiles: point 0 of b lies at `shift` in a."""
    shift = truth[pairs[:, 1]] - truth[pairs[:, 0]] + error
    information = np.ones(len(pairs)) if information is None else information
    return Correspondences(pairs[:, 0], pairs[:, 1], shift, np.zeros_like(shift), information)


def positions(solution):
    return solution.matrices[:, :-1, -1]


def without_mean(points):
    return points - points.mean(axis=0)


@pytest.mark.parametrize("shape", [(12, 15), (4, 5, 6), (30, 30)])
def test_exact_links_give_the_true_positions(shape):
    stage, truth, pairs = lattice(shape, np.random.default_rng(1), 5.0)
    solution = solve(shifts(truth, pairs), stage, model="translation", stage_sigma_px=5.0)
    away = without_mean(positions(solution)) - without_mean(truth)
    assert np.abs(away).max() < 1e-3
    assert np.allclose(positions(solution).mean(axis=0), stage.mean(axis=0), atol=1e-6)
    assert solution.residual_px.max() < 1e-3
    assert (solution.link_weight > 0.9).all()
    assert solution.islands == ()


def test_noisy_links_give_the_least_squares_positions():
    """Against a dense weighted least-squares solution with the weights that came out."""
    rng = np.random.default_rng(2)
    stage, truth, pairs = lattice((9, 8), rng, 4.0)
    root = rng.normal(0, 0.5, (len(pairs), 2, 2)) + 2 * np.eye(2)
    information = root @ root.transpose(0, 2, 1)
    error = np.linalg.solve(root.transpose(0, 2, 1), rng.normal(0, 0.1, (len(pairs), 2, 1)))
    links = shifts(truth, pairs, error[:, :, 0], information)
    solution = solve(links, stage, model="translation", stage_sigma_px=4.0)
    design = np.zeros((len(pairs), 2, len(stage), 2))
    for row, (a, b) in enumerate(pairs):
        design[row, :, a] = -np.eye(2)
        design[row, :, b] = np.eye(2)
    design = design.reshape(len(pairs), 2, -1)
    weighted = information * solution.link_weight[:, None, None]
    normal = np.einsum("mip,mij,mjq->pq", design, weighted, design)
    right = np.einsum("mip,mij,mj->p", design, weighted, links.point_a)
    expected = (np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ right).reshape(-1, 2)
    away = without_mean(positions(solution)) - without_mean(expected)
    assert np.abs(away).max() < 2e-3


def test_a_stage_with_a_wrong_scale_bends_nothing():
    rng = np.random.default_rng(3)
    stage, _, pairs = lattice((20, 20), rng, 0.0)
    truth = stage * 1.02 + 0.1 * stage[:, ::-1]
    solution = solve(shifts(truth, pairs), stage, model="translation", stage_sigma_px=3.0)
    steps = (positions(solution) - truth)[pairs]
    assert np.abs(steps[:, 1] - steps[:, 0]).max() < 1e-3
    assert np.abs(without_mean(positions(solution) - truth)).max() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_gross_outliers_change_no_position(seed):
    rng = np.random.default_rng(seed)
    stage, truth, pairs = lattice((20, 20), rng, 5.0)
    error = rng.normal(0, 0.05, (len(pairs), 2))
    clean = solve(shifts(truth, pairs, error), stage, model="translation", stage_sigma_px=5.0)
    more = rng.choice(len(pairs), len(pairs) // 10, replace=False)
    wrong = rng.choice([-1, 1], (len(more), 2)) * rng.uniform(5, 200, (len(more), 2))
    links = shifts(truth, np.vstack([pairs, pairs[more]]), np.vstack([error, wrong]))
    solution = solve(links, stage, model="translation", stage_sigma_px=5.0)
    assert np.abs(positions(solution) - positions(clean)).max() < 0.05
    assert (solution.link_weight[len(pairs) :] == 0).all()
    assert (solution.link_weight[: len(pairs)] > 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_links_in_whole_pixels_are_no_outliers(seed):
    """Most agree exactly; those that were rounded the other way are a pixel off."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-60, 60, (20, 2))
    pairs = np.array([(i - gap, i) for i in range(20) for gap in (1, 2, 3) if gap <= i])
    exact = shifts(truth, pairs)
    links = replace(exact, point_a=np.rint(exact.point_a))
    found = solve(links, np.zeros((20, 2)), model="translation", stage_sigma_px=200.0, least_px=0.5)
    assert found.islands == ()
    assert (found.link_weight > 0.1).all()
    off = without_mean(positions(found)) - without_mean(truth)
    assert np.abs(off).max() < 1


def test_outliers_in_place_of_good_links_lose():
    rng = np.random.default_rng(5)
    stage, truth, pairs = lattice((30, 30), rng, 5.0)
    error = rng.normal(0, 0.05, (len(pairs), 2))
    wrong = np.zeros(len(pairs), bool)
    wrong[rng.choice(len(pairs), len(pairs) // 20, replace=False)] = True
    error[wrong] += rng.uniform(20, 200, (wrong.sum(), 2))
    links = shifts(truth, pairs, error)
    solution = solve(links, stage, model="translation", stage_sigma_px=5.0)
    assert np.abs(without_mean(positions(solution) - truth)).max() < 0.3
    assert np.array_equal(solution.link_weight == 0, wrong)


def test_islands_keep_their_stage_position_and_are_listed():
    rng = np.random.default_rng(6)
    stage, truth, pairs = lattice((6, 6), rng, 5.0)
    rows = np.arange(36) // 6
    pairs = pairs[(rows[pairs] != 4).all(axis=1)]
    solution = solve(shifts(truth, pairs), stage, model="translation", stage_sigma_px=5.0)
    last = np.arange(30, 36)
    assert solution.islands == (tuple(last.tolist()), *((i,) for i in range(24, 30)))
    assert np.array_equal(positions(solution)[24:30], stage[24:30])
    assert np.allclose(positions(solution)[last].mean(axis=0), stage[last].mean(axis=0))
    inside = positions(solution)[last] - truth[last]
    assert np.abs(without_mean(inside)).max() < 1e-3
    assert solution.component.tolist() == [0] * 24 + [2, 3, 4, 5, 6, 7] + [1] * 6


def test_no_links_at_all():
    stage = np.array([[0.0, 3.5], [7.25, 1.0]])
    none = Correspondences(
        np.empty(0, int), np.empty(0, int), np.empty((0, 2)), np.empty((0, 2)), np.empty(0)
    )
    solution = solve(none, stage, model="affine", stage_sigma_px=5.0)
    assert np.array_equal(positions(solution), stage)
    assert solution.islands == ((1,),)
    assert solution.link_weight.shape == (0,)


def test_a_link_that_knows_one_axis_leaves_the_other_to_the_stage():
    stage = np.array([[0.0, 0.0], [0.0, 90.0]])
    one_axis = np.array([[[0.0, 0.0], [0.0, 4.0]]])
    links = Correspondences(
        np.array([0]), np.array([1]), np.array([[50.0, 93.0]]), np.zeros((1, 2)), one_axis
    )
    solution = solve(links, stage, model="translation", stage_sigma_px=5.0)
    apart = positions(solution)[1] - positions(solution)[0]
    assert np.allclose(apart, [0.0, 93.0], atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), model=st.sampled_from(["translation", "rigid", "affine"]))
def test_the_order_of_tiles_and_links_changes_not_a_bit(seed, model):
    rng = np.random.default_rng(seed)
    stage, truth, pairs = lattice((4, 5), rng, 4.0)
    stage = stage + rng.uniform(-1, 1, stage.shape)
    pairs = np.repeat(pairs, 4, axis=0)
    in_a = rng.uniform(0, 100, (len(pairs), 2))
    in_b = in_a + truth[pairs[:, 0]] - truth[pairs[:, 1]] + rng.normal(0, 0.1, in_a.shape)
    in_b[rng.random(len(pairs)) < 0.05] += 50
    link = np.arange(len(pairs)) // 4
    weight = rng.uniform(0.5, 2, len(pairs))
    options = {"model": model, "stage_sigma_px": 4.0}
    links = Correspondences(pairs[:, 0], pairs[:, 1], in_a, in_b, weight, link)
    first = solve(links, stage, **options)
    tiles, rows = rng.permutation(len(stage)), rng.permutation(len(pairs))
    number = np.argsort(tiles)
    a, b = number[pairs[rows, 0]], number[pairs[rows, 1]]
    swap = rng.random(len(rows)) < 0.5
    moved = Correspondences(
        np.where(swap, b, a),
        np.where(swap, a, b),
        np.where(swap[:, None], in_b[rows], in_a[rows]),
        np.where(swap[:, None], in_a[rows], in_b[rows]),
        weight[rows],
        link[rows],
    )
    second = solve(moved, stage[tiles], **options)
    assert np.array_equal(second.matrices, first.matrices[tiles])
    assert np.array_equal(second.link_weight, first.link_weight)
    assert np.array_equal(second.residual_px, first.residual_px[rows])


def rotation(vector):
    """exp of a rotation vector by its power series; one number in 2-D, three in 3-D."""
    if len(vector) == 1:
        skew = np.array([[0.0, vector[0]], [-vector[0], 0.0]])
    else:
        p, q, r = vector
        skew = np.array([[0, p, q], [-p, 0, r], [-q, -r, 0]])
    term, total = np.eye(len(skew)), np.eye(len(skew))
    for n in range(1, 20):
        term = term @ skew / n
        total = total + term
    return total


def many_points(shape, model, rng, noise, points=12):
    """Correspondences of tiles with true matrices, up to `points` random ones in each overlap."""
    stage, shift, pairs = lattice(shape, rng, 3.0)
    ndim = len(shape)
    linear = np.tile(np.eye(ndim), (len(stage), 1, 1))
    for tile in linear:
        if model == "rigid":
            tile[:] = rotation(rng.normal(0, 0.01, ndim * (ndim - 1) // 2))
        elif model == "affine":
            tile += rng.normal(0, 0.01, (ndim, ndim))
    pairs = np.repeat(pairs, points, axis=0)
    half = 50.0
    between = (stage[pairs[:, 0]] + stage[pairs[:, 1]]) / 2 + half
    place = between + rng.uniform(-half, half, between.shape) * np.where(
        stage[pairs[:, 0]] == stage[pairs[:, 1]], 1.0, 0.1
    )
    seen = [np.einsum("mij,mj->mi", np.linalg.inv(linear)[t], place - shift[t]) for t in pairs.T]
    in_a, in_b = (p + rng.normal(0, noise, p.shape) for p in seen)
    link = np.arange(len(pairs)) // points
    ones = np.ones(len(pairs))
    return stage, linear, shift, Correspondences(pairs[:, 0], pairs[:, 1], in_a, in_b, ones, link)


def world_error(solution, linear, shift, ndim):
    """Distances of tile corners from the truth after the best common affine map, px."""
    unit = np.stack(np.meshgrid(*[[0.0, 100.0]] * ndim, indexing="ij"), axis=-1).reshape(-1, ndim)
    true = np.einsum("nij,cj->nci", linear, unit) + shift[:, None]
    found = np.einsum("nij,cj->nci", solution.matrices[:, :-1, :-1], unit)
    found = (found + positions(solution)[:, None]).reshape(-1, ndim)
    design = np.concatenate([found, np.ones((len(found), 1))], axis=1)
    fit = design @ np.linalg.lstsq(design, true.reshape(-1, ndim), rcond=None)[0]
    return np.linalg.norm(fit - true.reshape(-1, ndim), axis=1)


@pytest.mark.parametrize("shape", [(5, 6), (3, 3, 3)])
@pytest.mark.parametrize("model", ["rigid", "affine"])
def test_known_transforms_are_recovered(shape, model):
    rng = np.random.default_rng(8)
    stage, linear, shift, links = many_points(shape, model, rng, noise=0.0)
    solution = solve(links, stage, model=model, stage_sigma_px=3.0, linear_sigma=0.05)
    assert solution.residual_px.max() < 1e-2
    assert world_error(solution, linear, shift, len(shape)).max() < 0.05
    if model == "rigid":
        product = solution.matrices[:, :-1, :-1] @ solution.matrices[:, :-1, :-1].transpose(0, 2, 1)
        assert np.allclose(product, np.eye(len(shape)), atol=1e-9)


@pytest.mark.parametrize("model", ["rigid", "affine"])
def test_outlier_links_lose_against_tiles_that_may_turn(model):
    rng = np.random.default_rng(9)
    stage, linear, shift, links = many_points((6, 6), model, rng, noise=0.05)
    wrong = rng.choice(links.link.max() + 1, 4, replace=False)
    links.point_b[np.isin(links.link, wrong)] += [40.0, -25.0]
    solution = solve(links, stage, model=model, stage_sigma_px=3.0)
    assert np.flatnonzero(solution.link_weight == 0).tolist() == sorted(wrong.tolist())
    assert np.median(world_error(solution, linear, shift, 2)) < 0.5


def test_a_tile_with_one_thin_link_does_not_explode():
    """Two points a few px apart fix neither scale nor shear: those stay the stage's."""
    stage = np.array([[0.0, 0.0], [0.0, 90.0]])
    in_a = np.array([[50.0, 95.0], [52.0, 95.5]])
    in_b = in_a - [0.0, 90.0] + [[0.3, 0.2], [-0.2, 0.4]]
    links = Correspondences(
        np.zeros(2, int), np.ones(2, int), in_a, in_b, np.ones(2), np.zeros(2, int)
    )
    solution = solve(links, stage, model="affine", stage_sigma_px=5.0, linear_sigma=0.01)
    assert np.abs(solution.matrices[:, :-1, :-1] - np.eye(2)).max() < 0.1


def test_large_rotations_of_the_stage_are_kept():
    """A stage that knows the turn of each tile: the links only shift."""
    rng = np.random.default_rng(10)
    turns = [rotation([a]) for a in (0.0, 1.0, 2.5)]
    stage = np.tile(np.eye(3), (3, 1, 1))
    for matrix, turn, x in zip(stage, turns, (0, 100, 200), strict=True):
        matrix[:2, :2], matrix[1, 2] = turn, x
    true = stage.copy()
    true[:, :2, 2] += rng.normal(0, 2, (3, 2))
    place = rng.uniform(0, 300, (40, 2))
    a, b = np.repeat([0, 1], 20), np.repeat([1, 2], 20)
    inverse = np.linalg.inv(true)
    in_a, in_b = (
        np.einsum("mij,mj->mi", inverse[t, :2, :2], place) + inverse[t, :2, 2] for t in (a, b)
    )
    links = Correspondences(a, b, in_a, in_b, np.ones(40), np.repeat([0, 1], 20))
    solution = solve(links, stage, model="rigid", stage_sigma_px=2.0)
    assert solution.residual_px.max() < 0.01
    assert np.allclose(solution.matrices[:, :2, :2], turns, atol=1e-3)


def one_link(**change):
    row = {
        "tile_a": np.array([0]),
        "tile_b": np.array([1]),
        "point_a": np.zeros((1, 2)),
        "point_b": np.zeros((1, 2)),
        "information": np.ones(1),
    }
    return Correspondences(**{**row, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"point_a": np.array([[0.0, np.nan]])}, "point_a of correspondence 0 is not finite"),
        ({"information": np.array([-1.0])}, "information of correspondence 0 is negative"),
        ({"tile_b": np.array([0])}, "joins tile 0 to itself"),
        ({"link": np.array([-1])}, "link number -1"),
    ],
)
def test_bad_correspondences_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        one_link(**change)


def test_bad_stages_are_refused():
    good = {"model": "translation", "stage_sigma_px": 1.0}
    with pytest.raises(ValueError, match="there are 1 tiles"):
        solve(one_link(), np.zeros((1, 2)), **good)
    with pytest.raises(ValueError, match="points have 2 axes, the stage 3"):
        solve(one_link(), np.zeros((2, 3)), **good)
    with pytest.raises(ValueError, match="tile 1 is not finite"):
        solve(one_link(), np.array([[0.0, 0.0], [np.inf, 0.0]]), **good)
    with pytest.raises(ValueError, match="positive"):
        solve(one_link(), np.zeros((2, 2)), model="translation", stage_sigma_px=0.0)
