import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import expm
from scipy.sparse.linalg import spsolve

from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.montage.solve_motion import Motion
from warpbeam.kernels.montage.solve_multigrid import Multigrid


def mosaic_matrix(side, model, rng, faint=0.05):
    """A system of random links between points of neighbouring tiles; some links are very weak."""
    index = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=1),
            np.stack([index[:-1].ravel(), index[1:].ravel()], axis=1),
        ]
    )
    pairs = np.repeat(pairs, 1 if model == "translation" else 5, axis=0)
    centre = np.stack(np.divmod(index.ravel(), side), axis=1) * 10.0
    motion = Motion.of(model, 2, 5.0)
    place = centre[pairs].mean(axis=1) + rng.uniform(-5, 5, (len(pairs), 2))
    weight = np.where(rng.random(len(pairs)) < faint, 1e-6, rng.uniform(0.5, 2, len(pairs)))
    rows = np.zeros((len(pairs), 2, len(centre), motion.size))
    for sign, tile in ((1, pairs[:, 0]), (-1, pairs[:, 1])):
        rows[np.arange(len(pairs)), :, tile] = sign * motion.jacobian(place - centre[tile])
    design = sparse.csr_array(rows.reshape(2 * len(pairs), -1))
    normal = design.T @ sparse.diags_array(np.repeat(weight, 2)) @ design
    normal = normal + 1e-6 * sparse.eye_array(normal.shape[0])
    blocks = sparse.bsr_array(normal.tobsr((motion.size, motion.size)))
    blocks.sort_indices()
    return blocks, centre, np.stack(np.divmod(index.ravel(), side), axis=1), motion


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_same_solution_as_a_direct_solver(model):
    rng = np.random.default_rng(0)
    matrix, centre, cell, motion = mosaic_matrix(24, model, rng)
    truth = rng.normal(0, 1, matrix.shape[0])
    right = matrix @ truth
    multigrid = Multigrid(matrix, centre, cell, motion.carried)
    found, steps = conjugate_gradients(matrix, right, multigrid, tolerance=1e-9, most=200)
    expected = spsolve(sparse.csc_array(matrix), right)
    assert steps < 100
    assert np.abs(found - expected).max() < 1e-5


def test_the_cycle_is_symmetric_and_positive():
    rng = np.random.default_rng(1)
    matrix, centre, cell, motion = mosaic_matrix(22, "translation", rng)
    multigrid = Multigrid(matrix, centre, cell, motion.carried)
    for _ in range(5):
        x, y = rng.normal(0, 1, (2, matrix.shape[0]))
        assert np.isclose(x @ multigrid(y), y @ multigrid(x), rtol=1e-9)
        assert x @ multigrid(x) > 0


def test_steps_hardly_grow_with_the_mosaic():
    counts = []
    for side in (30, 120):
        rng = np.random.default_rng(2)
        index = np.arange(side * side)
        line = sparse.diags_array(
            [np.full(side - 1, -1.0), np.full(side, 2.0), np.full(side - 1, -1.0)],
            offsets=[-1, 0, 1],
        )
        unit = sparse.eye_array(side)
        scalar = sparse.kron(line, unit) + sparse.kron(unit, line)
        matrix = sparse.bsr_array(sparse.kron(scalar, np.eye(2)).tobsr((2, 2)))
        cell = np.stack(np.divmod(index, side), axis=1)
        motion = Motion.of("translation", 2, 1.0)
        multigrid = Multigrid(matrix, cell * 1.0, cell, motion.carried)
        right = rng.normal(0, 1, matrix.shape[0])
        counts.append(conjugate_gradients(matrix, right, multigrid, tolerance=1e-6, most=99)[1])
    assert counts[1] <= counts[0] + 10
    assert counts[1] < 30


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_rigid_step_is_the_exponential_of_its_generators(ndim):
    rng = np.random.default_rng(3)
    motion = Motion.of("rigid", ndim, 7.0)
    assert motion.size == {2: 3, 3: 6}[ndim]
    step = rng.normal(0, 5, (6, motion.size))
    linear = np.tile(np.eye(ndim), (6, 1, 1))
    small = np.einsum("nq,qij->nij", step[:, : -ndim or None], motion.generators / 7.0)
    assert np.allclose(motion.moved(linear, step), [expm(one) for one in small])
    assert np.allclose(motion.moved(linear, step * 0), linear)


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_a_groups_motion_moves_its_members_points_alike(model):
    """The field `G (x - C) + g` of a group, and the same field from a member's parameters."""
    rng = np.random.default_rng(4)
    motion = Motion.of(model, 3, 7.0)
    group, offset, lever = rng.normal(0, 1, motion.size), *rng.normal(0, 9, (2, 5, 3))
    member = motion.carried(offset) @ group
    moved = np.einsum("mdk,mk->md", motion.jacobian(lever), member)
    assert np.allclose(moved, motion.jacobian(lever + offset) @ group)
