"""Meshes that outliers cannot pull: iteratively reweighted Gauss-Newton steps.

Each target is weighted by Geman and McClure of its distance to the mesh. The cutoff is lowered
from the spread of the first, unweighted solution to that of the good targets (graduated
non-convexity). Several targets per node are several opinions; the wrong ones lose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.linear.geman_mcclure import axis_scale, geman_mcclure
from warpbeam.kernels.mesh.energy import Elasticity, MeshEnergy
from warpbeam.kernels.mesh.gauss_newton import Solver, checked

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]
Nodes = Bool[np.ndarray, "*grid"]
Targets = Float[np.ndarray, "r c *grid"]
Weights = Float[np.ndarray, "r *grid"]
AnyWeights = Float[np.ndarray, "..."]  # its shape is checked, with a message

_ROUNDS = 30  # of reweighting; 6 to 10 are usual
_SHRINK = 4.0  # how fast the scale may fall in a round
_REJECTED = 0.1  # a target of less weight is taken out
_SETTLED = 5e-3  # mean change of weights, below which they are final
_ROUGH = 0.02  # of the scale: how well the mesh of a round is solved for


@dataclass(frozen=True)
class RobustMesh:
    """A mesh at rest with the targets that were believed.

    Attributes:
        offsets: of the nodes, px; NaN on nodes that do not exist or hang on no target.
        kept: of each target, the share of its weight that was left; 0: rejected or none.
        scale_px: standard deviation on one axis of the good targets about the mesh.
        energy: with the weights that were left.
        converged: whether the last step was below the tolerance.
    """

    offsets: Field
    kept: Weights
    scale_px: float
    energy: float
    converged: bool


def relax_robust(
    targets: Targets,
    elasticity: Elasticity,
    *,
    weight: AnyWeights | None = None,
    start: Field | None = None,
    active: Nodes | None = None,
    least_scale_px: float = 0.3,
    tolerance_px: float = 1e-3,
) -> RobustMesh:
    """The mesh that most targets agree on.

    Args:
        targets: where each of `r` references wants each node, as offset in px; NaN for none.
        elasticity: the material and the strides.
        weight: of each target, at least 0; None for 1 each.
        start: offsets to begin from; NaN counts as 0.
        active: nodes that exist; None for all.
        least_scale_px: no target is believed to be better than this.
        tolerance_px: root mean square of the last step.

    Raises:
        ValueError: shapes that differ, a negative or infinite weight, no target at all.
    """
    target, share = _checked(targets, weight, active)
    mesh = MeshEnergy(elasticity, targets.shape[2:], active)
    held = mesh.held(share.sum(axis=0))
    solver = Solver(mesh, held)
    shape = target.shape[1:]
    offsets = np.zeros(shape) if start is None else np.nan_to_num(start.astype(np.float64))
    offsets *= held
    squared = _squared(offsets, target)
    rough = _ROUGH * _scale(squared, share, least_scale_px) + tolerance_px
    offsets, _, _ = solver.improve(offsets, *_merged(target, share), tolerance=rough)
    squared = _squared(offsets, target)
    scale = noise = 2 * _scale(squared, share, least_scale_px)
    kept = np.where(share > 0, geman_mcclure(squared, scale), 0.0)
    for _ in range(_ROUNDS):
        merged = _merged(target, share * kept)
        offsets, _, _ = solver.improve(offsets, *merged, tolerance=_ROUGH * noise)
        squared = _squared(offsets, target)
        noise = _scale(squared, share, least_scale_px)
        settled, scale = scale < 1.1 * noise, max(noise, scale / _SHRINK)
        before, kept = kept, np.where(share > 0, geman_mcclure(squared, scale), 0.0)
        if settled and np.abs(kept - before).mean() <= _SETTLED:
            break
    kept[kept < _REJECTED] = 0.0
    merged = _merged(target, share * kept)
    step = np.inf
    for _ in range(_ROUNDS):
        offsets, step, _ = solver.improve(offsets, *merged, tolerance=0.3 * tolerance_px)
        if step <= tolerance_px:
            break
    energy = mesh.value(offsets, *merged)
    spread = _scale(_squared(offsets, target), share * kept, 0.0)
    return RobustMesh(np.where(held, offsets, np.nan), kept, spread, energy, step <= tolerance_px)


def _checked(
    targets: Targets, weight: AnyWeights | None, active: Nodes | None
) -> tuple[Targets, Weights]:
    if weight is not None and weight.shape != (len(targets), *targets.shape[2:]):
        raise ValueError(f"weights of shape {weight.shape} for targets {targets.shape}")
    weight = np.ones((len(targets), *targets.shape[2:])) if weight is None else weight
    some = (np.isfinite(targets).all(axis=1) & (weight > 0)).any(axis=tuple(range(1, weight.ndim)))
    if not some.any():
        raise ValueError(f"none of the {targets[0, 0].size} nodes has a target")
    pairs = [checked(t, w, active) for t, w in zip(targets[some], weight[some], strict=True)]
    target, share = np.zeros(targets.shape), np.zeros(weight.shape)
    target[some], share[some] = np.stack([t for t, _ in pairs]), np.stack([w for _, w in pairs])
    return target, share


def _merged(target: Targets, weight: Weights) -> tuple[Field, Grid]:
    """One data spring per node that pulls as all of its springs do."""
    if len(target) == 1:
        return target[0], weight[0]
    total = weight.sum(axis=0)
    mean = (target * weight[:, None]).sum(axis=0) / np.where(total > 0, total, 1.0)
    return mean, total


def _squared(offsets: Field, target: Targets) -> Weights:
    """Mean over the axes of the squared distance of each target, px^2."""
    return ((target - offsets) ** 2).mean(axis=1)


def _scale(squared: Weights, weight: Weights, least: float) -> float:
    return axis_scale(squared[weight > 0], squared.ndim - 1, least)
