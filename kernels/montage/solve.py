"""Where the tiles of a mosaic lie: one robust least-squares solve over all links.

Links count by their information and by how well they agree with all others; see
`solve_robust`. The stage enters in three places only: as the start, as a spring along each
link so weak that neighbours move by less than a thousandth of a pixel for it, and as the mean
position of each component. A stage that is wrong at long range (scale, skew, drift) therefore
bends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from warpbeam.kernels.geometry.layout import components
from warpbeam.kernels.montage.solve_motion import Model, Motion
from warpbeam.kernels.montage.solve_order import Correspondences, arranged, spatial_order
from warpbeam.kernels.montage.solve_robust import Prior, reweighted
from warpbeam.kernels.montage.solve_system import State, System

__all__ = ["Correspondences", "Model", "Solution", "solve"]

Stage = Float[np.ndarray, "n d"] | Float[np.ndarray, "n d1 d1"]


@dataclass(frozen=True)
class Solution:
    """Where the tiles are, and what the links turned out to be worth.

    Attributes:
        matrices: `(n, d + 1, d + 1)` source voxel -> world voxel.
        residual_px: `(m,)` distance of the two points of each correspondence in the world.
        link_weight: one per link, 0 (rejected) to 1; NaN for a number that no correspondence has.
        component: `(n,)` which tiles hang together by links of weight > 0; 0 is the largest.
        islands: the tiles of each component but 0: placed against the rest by the stage alone.
        scale_px: the robust size of a typical link's residual on one axis.
    """

    matrices: Float[np.ndarray, "n d1 d1"]
    residual_px: Float[np.ndarray, " m"]
    link_weight: Float[np.ndarray, " links"]
    component: Int[np.ndarray, " n"]
    islands: tuple[tuple[int, ...], ...]
    scale_px: float


def solve(
    links: Correspondences,
    stage: Stage,
    *,
    model: Model,
    stage_sigma_px: float,
    linear_sigma: float = 0.02,
    least_px: float = 0.01,
) -> Solution:
    """Places all tiles so that the links agree and outliers among them lose.

    The result does not depend on the order of the links, nor, if no two tiles have one stage
    position, on the order of the tiles. A tile without links stays exactly where the stage has
    it; every component keeps the mean of its tiles' stage positions.

    Args:
        links: what was measured.
        stage: where each tile's voxel 0 is thought to be, `(n, d)` px, or its whole matrix.
        model: what a tile may do beside its stage matrix.
        stage_sigma_px: by how much stage positions err on each axis, standard deviation.
        linear_sigma: by how much the entries of a tile's linear part may differ from the stage's
            (0.02: 2 %, or 1.1 degrees). Holds tiles whose links do not determine it.
        least_px: no link is trusted to be better than this, standard deviation. Where most agree
            exactly, as whole pixels do, one that is rounded the other way is no outlier.

    Raises:
        ValueError: a link to a tile that does not exist, ranks that do not fit, a stage that is
            not finite, or a sigma that is not positive.
    """
    given = _matrices(stage)
    _check(links, given, stage_sigma_px, linear_sigma)
    tiles = spatial_order(given)
    rows, order = arranged(links, tiles)
    system = _system(rows, given[tiles], model)
    found = reweighted(system, Prior(stage_sigma_px, linear_sigma), least_px)
    kept = np.empty(len(order), bool)
    kept[order] = found.weight[system.link] > 0
    component = components(len(given), np.stack([links.tile_a, links.tile_b], axis=1)[kept])
    state = _anchored(found.state, system.stage, component[tiles])
    matrices = given.copy()
    moved = state.shift - np.einsum("nij,nj->ni", state.linear, state.centre)
    matrices[tiles, :-1] = np.concatenate([state.linear, moved[:, :, None]], axis=2)
    alone = np.bincount(component, minlength=1)[component] == 1
    matrices[alone] = given[alone]
    residual = np.empty(len(order))
    residual[order] = np.sqrt((system.residual(state) ** 2).sum(axis=1))
    weight = np.full(int(links.links.max(initial=-1)) + 1, np.nan)
    weight[links.links[order]] = found.weight[system.link]
    return Solution(matrices, residual, weight, component, _islands(component), found.scale)


def _matrices(stage: Stage) -> Float[np.ndarray, "n d1 d1"]:
    if stage.ndim == 3:
        return stage.astype(np.float64)
    count, ndim = stage.shape
    matrices = np.tile(np.eye(ndim + 1), (count, 1, 1))
    matrices[:, :-1, -1] = stage
    return matrices


def _check(links: Correspondences, stage: np.ndarray, *sigmas: float) -> None:
    bad = np.flatnonzero(~np.isfinite(stage).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"the stage position of tile {bad[0]} is not finite")
    ndim = links.point_a.shape[1]
    if stage.shape[1] != ndim + 1:
        raise ValueError(f"points have {ndim} axes, the stage {stage.shape[1] - 1}")
    named = np.concatenate([links.tile_a, links.tile_b])
    if len(named) and not (named.min() >= 0 and named.max() < len(stage)):
        raise ValueError(
            f"links name tiles {named.min()} to {named.max()}, there are {len(stage)} tiles"
        )
    if min(sigmas) <= 0:
        raise ValueError(f"standard deviations must be positive, got {sigmas}")


def _system(rows: Correspondences, stage: np.ndarray, model: Model) -> System:
    """The equations, with the mean of a tile's points as its centre if it may turn."""
    centre, radius = np.zeros((len(stage), rows.point_a.shape[1])), 1.0
    if model != "translation" and len(rows.tile_a):
        points = np.concatenate([rows.point_a, rows.point_b])
        tile = np.concatenate([rows.tile_a, rows.tile_b])
        count = np.maximum(np.bincount(tile, minlength=len(stage)), 1)
        for axis, column in enumerate(points.T):
            centre[:, axis] = np.bincount(tile, column, len(stage)) / count
        radius = max(1.0, float(np.sqrt(((points - centre[tile]) ** 2).sum(axis=1).mean())))
    linear = stage[:, :-1, :-1]
    shift = np.einsum("nij,nj->ni", linear, centre) + stage[:, :-1, -1]
    return System(
        a=rows.tile_a,
        b=rows.tile_b,
        at_a=rows.point_a,
        at_b=rows.point_b,
        information=rows.matrices,
        link=rows.links,
        stage=State(linear, centre, shift),
        motion=Motion.of(model, centre.shape[1], radius),
    )


def _anchored(state: State, stage: State, component: np.ndarray) -> State:
    """Every component shifted to the mean of its stage positions, which the links leave open."""
    drift = state.shift - stage.shift
    total = np.stack([np.bincount(component, column) for column in drift.T], axis=1)
    mean = total / np.bincount(component)[:, None]
    return replace(state, shift=state.shift - mean[component])


def _islands(component: np.ndarray) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(component, kind="stable")
    cuts = np.flatnonzero(np.diff(component[order])) + 1
    return tuple(tuple(tiles.tolist()) for tiles in np.split(order, cuts)[1:])
