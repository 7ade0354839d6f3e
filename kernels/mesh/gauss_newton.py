"""The minimum of a mesh's energy by Gauss-Newton steps, each solved by multigrid CG.

The energy is the one that `fire` follows in time; near the minimum a step squares the distance
to it, so that three or four are usual where FIRE takes tens of thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.mesh.energy import Elasticity, MeshEnergy
from warpbeam.kernels.mesh.multigrid import LatticeMultigrid
from warpbeam.kernels.mesh.springs import Expansion

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]
Nodes = Bool[np.ndarray, "*grid"]
AnyGrid = Float[np.ndarray, "..."]  # its shape is checked, with a message
AnyNodes = Bool[np.ndarray, "..."]

_SHARE = 0.01  # how much closer to the minimum each step is meant to get
_CG_STEPS = 400
_STALE_STEPS = 25  # more steps than this, and the multigrid is built anew for the next
_HALVINGS = 30
_ARMIJO = 1e-4
_ROUNDING = 1e-13  # of the energy: what counts as no change


@dataclass(frozen=True)
class Relaxed:
    """A mesh at rest.

    Attributes:
        offsets: of the nodes, px; NaN on nodes that do not exist or hang on no target.
        energy: there.
        steps: Gauss-Newton steps.
        inner_steps: of conjugate gradients, in all.
        converged: whether the last step was below the tolerance.
    """

    offsets: Field
    energy: float
    steps: int
    inner_steps: int
    converged: bool


def relax(
    target: Field,
    elasticity: Elasticity,
    *,
    weight: AnyGrid | None = None,
    start: Field | None = None,
    active: AnyNodes | None = None,
    tolerance_px: float = 1e-6,
    most_steps: int = 60,
) -> Relaxed:
    """The mesh whose springs, bending and data springs balance.

    Args:
        target: where the data wants each node, as offset in px; NaN for no target.
        elasticity: the material and the strides.
        weight: of each target, at least 0; None for 1 each.
        start: offsets to begin from; NaN counts as 0.
        active: nodes that exist; None for all.
        tolerance_px: root mean square of the last step.
        most_steps: of Gauss and Newton.

    Raises:
        ValueError: shapes that differ, a negative or infinite weight, no target at all.
    """
    target, weight = checked(target, weight, active)
    mesh = MeshEnergy(elasticity, target.shape[1:], active)
    held = mesh.held(weight)
    solver = Solver(mesh, held)
    offsets = np.zeros_like(target) if start is None else np.nan_to_num(start.astype(np.float64))
    offsets *= held
    error = _distance(offsets, target, weight) + tolerance_px
    finest = 0.3 * tolerance_px
    count, inner, converged = 0, 0, False
    while count < most_steps and not converged:
        # without springs the first step is exact, and worth solving for in one go
        error = max(_SHARE * error, finest) if elasticity.spring else finest
        offsets, step, used = solver.improve(offsets, target, weight, tolerance=error)
        count, inner = count + 1, inner + used
        converged = error == finest and step <= tolerance_px
    energy = mesh.value(offsets, target, weight)
    offsets = np.where(held, offsets, np.nan)
    return Relaxed(offsets, energy, count, inner, converged)


class Solver:
    """Takes the offsets of one mesh downhill."""

    def __init__(self, mesh: MeshEnergy, held: Nodes) -> None:
        self.mesh, self._held = mesh, None if held.all() else held
        self._multigrid: LatticeMultigrid | None = None
        self._forms = mesh.elasticity.forms()

    def improve(
        self, offsets: Field, target: Field, weight: Grid, *, tolerance: float
    ) -> tuple[Field, float, int]:
        """One Gauss-Newton step, shortened until the energy falls.

        Args:
            target: finite everywhere.
            weight: of the targets; 0 where there is none.
            tolerance: error of the step before it is shortened, root mean square, px.

        Returns:
            the new offsets, the root mean square of the step, px, and the steps of CG.
        """
        model, gradient = self.mesh.expand(offsets, target, weight)
        if self._multigrid is None:
            self._multigrid = LatticeMultigrid(self._forms, weight, len(offsets))
        matrix = _Matrix(self.mesh, model, weight, offsets.shape)
        right = -self._kept(gradient).ravel()
        step, used = conjugate_gradients(
            matrix, right, self._precondition, tolerance=tolerance, most=_CG_STEPS
        )
        if used > _STALE_STEPS:
            self._multigrid = None
        change = step.reshape(offsets.shape)
        size = float(np.sqrt((step**2).mean()))
        slope = float((right * step).sum())
        before = self.mesh.value(offsets, target, weight)
        fraction = 1.0
        for _ in range(_HALVINGS):
            tried = offsets + fraction * change
            after = self.mesh.value(tried, target, weight)
            if after <= before - _ARMIJO * fraction * slope + _ROUNDING * abs(before):
                return tried, fraction * size, used
            fraction /= 2
        return offsets, 0.0, used

    def _precondition(self, residual: Float[np.ndarray, " nk"]) -> Float[np.ndarray, " nk"]:
        """A cycle over the whole lattice; nodes that do not exist push and move nothing."""
        if self._multigrid is None:
            raise ValueError("no multigrid has been built")
        shape = (len(self.mesh.shape), *self.mesh.shape)
        return self._kept(self._multigrid(residual.reshape(shape))).ravel()

    def _kept(self, field: Field) -> Field:
        return field if self._held is None else field * self._held


@dataclass(frozen=True)
class _Matrix:
    """The curvature, to be multiplied with flat vectors."""

    mesh: MeshEnergy
    model: Expansion
    weight: Grid
    shape: tuple[int, ...]

    def __matmul__(self, x: Float[np.ndarray, " nk"]) -> Float[np.ndarray, " nk"]:
        return self.mesh.product(self.model, self.weight, x.reshape(self.shape)).ravel()


def _distance(offsets: Field, target: Field, weight: Grid) -> float:
    """Root mean square over the nodes that have a target, px."""
    return float(np.sqrt(((offsets - target)[:, weight > 0] ** 2).mean()))


def checked(target: Field, weight: AnyGrid | None, active: AnyNodes | None) -> tuple[Field, Grid]:
    """Targets without NaN and weights that are 0 where there was one."""
    shape = target.shape[1:]
    if target.shape[0] != len(shape):
        raise ValueError(f"{len(shape)} axes need as many components, got {target.shape}")
    for name, array in (("weight", weight), ("active", active)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, the mesh {shape}")
    known = np.isfinite(target).all(axis=0)
    if active is not None:
        known &= active
    if weight is not None:
        known &= ~np.isnan(weight)
        if not (np.isfinite(weight[known]) & (weight[known] >= 0)).all():
            raise ValueError("weights must be finite and at least 0")
    weight = known.astype(np.float64) if weight is None else np.where(known, weight, 0.0)
    if not (weight > 0).any():
        raise ValueError(f"none of the {target[0].size} nodes has a target")
    return np.where(known, target, 0.0).astype(np.float64), weight
