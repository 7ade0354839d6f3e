"""One smooth field from all matches of a volume, solved jointly and robustly.

`E(u) = 1/2 sum_n k_n (u_n - t_n)' A_n (u_n - t_n) + bending`

over the offsets `u` of the nodes of a lattice: `t` is where a match wants a node, `A` its inverse
covariance, so that a match along an edge holds the node across the edge alone. Bending (see
`kernels.mesh.bending`) leaves affine maps free. `k` are weights of Geman and McClure by the
distance in standard deviations: what contradicts the rest counts for nothing. As every match of
every chunk takes part in one solve, chunks cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.linear.geman_mcclure import axis_scale, geman_mcclure
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.mesh.bending import bending_forms
from warpbeam.kernels.mesh.multigrid import LatticeMultigrid

Field = Float[np.ndarray, "d *nodes"]
Grid = Float[np.ndarray, "*nodes"]
Information = Float[np.ndarray, "d d *nodes"]

_ROUNDS = 12
_SHRINK = 2.0  # of the cutoff from round to round
_SETTLED = 1e-3
_REJECTED = 0.05
_CG_STEPS = 300
_TOLERANCE = 2e-4  # voxels, root mean square
_TRIES = 6  # against folds
_WEAKER = 0.1
_STIFFER = 1.15
_LEAST_SCALE = 0.3  # standard deviations: the matches are never believed to be better


@dataclass(frozen=True)
class JointField:
    """The field.

    Attributes:
        offsets: of all nodes, voxels.
        kept: the share of its weight that was left of each match; 0: rejected or none.
        residual: distance of each match from the field, voxels; NaN where there is none.
    """

    offsets: Field
    kept: Grid
    residual: Grid


def solve_field(
    target: Field,
    information: Information,
    stride: tuple[float, ...],
    *,
    bending_px: float,
    start: Field | None = None,
) -> JointField:
    """The field that most matches agree on.

    Args:
        target: offsets that the matches want, voxels; NaN for none.
        information: inverse covariance of each, voxels^-2, symmetric; finite everywhere.
        stride: voxels between nodes.
        bending_px: wavelength of which bending leaves half to matches of information 1 on
            every node.
        start: where iterations begin.

    Raises:
        ValueError: shapes differ, or there is no match at all.
    """
    known = np.isfinite(target).all(axis=0)
    if target.shape[0] != target.ndim - 1 or information.shape[2:] != target.shape[1:]:
        raise ValueError(f"targets {target.shape} do not fit information {information.shape}")
    if not known.any():
        raise ValueError("there is no match")
    goal = np.where(known, target, 0.0)
    system = _System(information, known, stride, bending_px)
    u = np.zeros_like(goal) if start is None else start.astype(np.float64)
    u = system.solve(goal, known.astype(np.float64), u)
    squared = _squared(u, goal, information)
    noise = axis_scale(squared[known], len(goal), _LEAST_SCALE)
    scale, kept = 2 * noise, np.zeros(known.shape)
    for _ in range(_ROUNDS):
        before, kept = kept, np.where(known, geman_mcclure(squared, scale), 0.0)
        u = system.solve(goal, kept, u)
        squared = _squared(u, goal, information)
        noise = axis_scale(squared[known], len(goal), _LEAST_SCALE)
        settled, scale = scale < 1.1 * noise, max(noise, scale / _SHRINK)
        if settled and np.abs(kept - before).mean() <= _SETTLED:
            break
    kept[kept < _REJECTED] = 0.0
    u = system.solve(goal, kept, u)
    residual = np.where(known, np.linalg.norm(u - goal, axis=0), np.nan)
    return JointField(u, kept, residual)


class _System:
    """The curvature of the energy, and solves with it."""

    def __init__(
        self,
        information: Information,
        known: Bool[np.ndarray, "*nodes"],
        stride: tuple[float, ...],
        bending_px: float,
    ) -> None:
        self._information = information
        self._kept = known.astype(np.float64)
        self._shape = (len(stride), *information.shape[2:])
        weight = np.where(known, np.trace(information), 0.0) / len(stride)
        self._cycle = LatticeMultigrid(bending_forms(stride, bending_px), weight, 1)

    def solve(self, goal: Field, kept: Grid, start: Field) -> Field:
        self._kept = kept
        right = self._pull(goal - start)
        self._cycle.add_product(-start, right)

        def precondition(residual: np.ndarray) -> np.ndarray:
            return self._cycle(residual.reshape(self._shape)).ravel()

        step, _ = conjugate_gradients(
            self, right.ravel(), precondition, tolerance=_TOLERANCE, most=_CG_STEPS
        )
        return start + step.reshape(self._shape)

    def __matmul__(self, x: Float[np.ndarray, " nk"]) -> Float[np.ndarray, " nk"]:
        field = x.reshape(self._shape)
        out = self._pull(field)
        self._cycle.add_product(field, out)
        return out.ravel()

    def _pull(self, x: Field) -> Field:
        """Of the matches, each with what is left of its weight."""
        pull = _product(self._information, x)
        pull *= self._kept
        return pull


def _product(information: Information, x: Field) -> Field:
    return np.einsum("ij...,j...->i...", information, x)


def _squared(u: Field, goal: Field, information: Information) -> Grid:
    """Mean over the axes of the squared distance in standard deviations."""
    apart = u - goal
    return (apart * _product(information, apart)).sum(axis=0) / len(u)


def solve_unfolded(
    target: Field,
    information: Information,
    stride: tuple[float, ...],
    *,
    bending_px: float,
    start: Field | None = None,
    least_jacobian: float = 0.1,
) -> JointField:
    """`solve_field`, tried again with weaker matches around cells that fold, and stiffer.

    Args:
        least_jacobian: smallest Jacobian determinant that a cell of the lattice may have.
    """
    found = solve_field(target, information, stride, bending_px=bending_px, start=start)
    matrix = information
    for _ in range(_TRIES):
        bad = _folded(found.offsets, stride, least_jacobian)
        if not bad.any():
            return found
        matrix = np.where(bad, _WEAKER, 1.0) * matrix
        bending_px *= _STIFFER
        found = solve_field(target, matrix, stride, bending_px=bending_px)
    return found


def _folded(offsets: Field, stride: tuple[float, ...], least: float) -> Bool[np.ndarray, "*nodes"]:
    """The nodes within two of a cell that folds, or nearly so."""
    m = CoordinateMap(offsets, (0.0,) * len(stride), stride)
    bad = np.zeros(offsets.shape[1:], bool)
    cells = jacobian(m)
    bad[tuple(map(slice, cells.shape))] = cells < least
    return np.asarray(ndimage.maximum_filter(bad, size=5))
