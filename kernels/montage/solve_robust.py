"""Iteratively reweighted least squares over the links of a mosaic.

The weight of a link is Geman and McClure's `(c^2 / (c^2 + r^2))^2` of its whitened residual `r`.
The cutoff `c` is lowered from the stage's accuracy to the links' own (graduated non-convexity;
Black and Rangarajan 1996, doi 10.1007/BF00131148), so that the first solution need not be good.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.geometry.layout import components
from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.linear.geman_mcclure import geman_mcclure
from warpbeam.kernels.montage.solve_multigrid import Multigrid
from warpbeam.kernels.montage.solve_system import State, System

LinkWeight = Float[np.ndarray, " links"]

_ROUNDS = 25  # of reweighting; 6 to 9 are usual
_SHRINK = 5.0  # how fast the scale may fall in a round
_REJECTED = 0.1  # a link of less weight is taken out: 4.4 scales on each axis
_SETTLED = 2e-2  # mean change of weights, below which they are final
_ROUGH = 0.01  # of the scale: how well the positions of a round are solved for
_PRECISE_PX = 1e-5
_STEPS = 300  # of conjugate gradients
_FEW_STEPS = 6  # while weights still change; if they do not do, the multigrid is built anew


@dataclass(frozen=True)
class Prior:
    """How well the stage is believed: standard deviations of positions and linear parts."""

    position_px: float
    linear: float


@dataclass(frozen=True)
class Estimate:
    """Tiles, weights of the links (0: rejected), and the scale of their residuals, px."""

    state: State
    weight: LinkWeight
    scale: float


def reweighted(system: System, prior: Prior, least_px: float) -> Estimate:
    """The tiles and weights after the last round, with the outliers taken out.

    No link is trusted to be better than `least_px`.
    """
    if not len(system.a):
        return Estimate(system.stage, np.empty(0), least_px)
    solver = _Solver(system, prior, least_px)
    squared = solver.squared_residuals()
    scale = max(np.sqrt(2) * prior.position_px, solver.scale(squared, fitted=False))
    noise, weight = scale / _SHRINK**2, geman_mcclure(squared, scale)
    everywhere = np.ones(len(system.pairs), bool)
    for _ in range(_ROUNDS):
        solver.improve(weight, everywhere, noise=noise, final=False)
        squared = solver.squared_residuals()
        noise = solver.scale(squared, fitted=True)
        settled, scale = scale < 1.1 * noise, max(noise, scale / _SHRINK)
        before, weight = weight, geman_mcclure(squared, scale)
        if settled and np.abs(weight - before).mean() <= _SETTLED:
            break
    weight[weight < _REJECTED] = 0.0
    kept = np.stack([system.a, system.b], axis=1)[weight[system.link] > 0]
    component = components(len(system.stage.shift), kept)
    within = component[system.pairs[:, 0]] == component[system.pairs[:, 1]]
    for _ in range(_ROUNDS):
        step = solver.improve(weight, within, noise=noise, final=True)
        if system.motion.linear or step <= 10 * _PRECISE_PX:
            break
    return Estimate(solver.state, weight, noise)


class _Solver:
    """Takes the tiles of one mosaic from state to state."""

    def __init__(self, system: System, prior: Prior, least_px: float) -> None:
        self.state = system.stage
        self._system, self._prior, self._least_px = system, prior, least_px
        self._multigrid: Multigrid | None = None
        self._residual = system.residual(system.stage)
        self._count = np.bincount(system.link)
        self._median = (1 - 2 / (9 * self._count * self._ndim)) ** 3
        self._unit = _typical(np.trace(system.information, axis1=1, axis2=2)) / self._ndim

    @property
    def _ndim(self) -> int:
        return self._system.motion.ndim

    def squared_residuals(self) -> LinkWeight:
        """Of each link, on one axis: the mean of `r' W r / d`, in px^2 of a typical link."""
        system, residual = self._system, self._residual
        squared = np.einsum("mi,mij,mj->m", residual, system.information, residual)
        total = np.bincount(system.link, squared, len(self._count))
        return total / (self._count * self._ndim * self._unit)

    def scale(self, squared: LinkWeight, *, fitted: bool) -> float:
        """The standard deviation of a typical link on one axis, from the median, px.

        The median of chi-squared with f degrees of freedom is about `f (1 - 2 / (9 f))^3`
        (Wilson and Hilferty 1931, doi 10.1073/pnas.17.12.684). `fitted`: the tiles were moved
        to make residuals small, which takes away as many degrees of freedom as they have.
        """
        spread = np.sqrt(np.median(squared / self._median))
        return max(self._least_px, float(spread / np.sqrt(self._redundancy if fitted else 1.0)))

    @cached_property
    def _redundancy(self) -> float:
        system = self._system
        tiles = len(np.unique(system.pairs))
        free = (tiles - 1) * system.motion.size
        return max(0.1, 1 - free / (len(system.a) * self._ndim))

    def improve(
        self,
        weight: LinkWeight,
        sprung: Bool[np.ndarray, " pairs"],
        *,
        noise: float,
        final: bool,
    ) -> float:
        """One Gauss-Newton step; returns the largest motion, px.

        Only the final ones are solved to the end: what a few steps of conjugate gradients leave
        over is taken up in the next round.
        """
        system, variance = self._system, self._unit * noise**2
        matrix, right = system.normal_equations(
            self.state,
            self._residual,
            weight[system.link],
            spring=sprung * (variance / (2 * self._prior.position_px**2)),
            hold=variance / (self._prior.linear * system.motion.radius) ** 2,
        )
        if self._multigrid is None or final:
            self._multigrid = Multigrid(
                matrix, self.state.shift, system.cells, system.motion.carried
            )
        most, tolerance = (_STEPS, _PRECISE_PX) if final else (_FEW_STEPS, _ROUGH * noise)
        step, steps = conjugate_gradients(
            matrix, right, self._multigrid, tolerance=tolerance, most=most
        )
        if steps == _FEW_STEPS:
            self._multigrid = None
        self.state = system.moved(self.state, step.reshape(-1, system.motion.size))
        self._residual = system.residual(self.state)
        return float(np.abs(step).max(initial=0.0))


def _typical(sizes: np.ndarray) -> float:
    """The median of what is positive; 1 where nothing is."""
    positive = sizes[sizes > 0]
    return float(np.median(positive)) if len(positive) else 1.0
