"""Sub-pixel shift between two overlapping patches by symmetric Gauss-Newton steps.

Maximises the masked normalised cross-correlation. Both patches are moved, by half the shift
each, and the step uses the mean of both gradients (efficient second-order minimisation;
Benhimane and Malis 2004, doi 10.1109/IROS.2004.1389474), so that interpolation smooths both
alike and noise pulls to neither side.

A gain that varies linearly over the patch and an offset that varies quadratically are fitted
along with the shift: that is what vignettes leave. A high-pass instead would see different
surroundings at the edges of either patch, and biases the shift by up to 0.02 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from warpbeam.kernels.montage.halfway import HalfwayPair, Samples, inverse_gram

Patch = Float32[np.ndarray, "*patch"]
Moving = Float32[np.ndarray, "*moving"]
Vector = Float[np.ndarray, " d"]

# Smoothing that the fit chooses from, px: sharp images favour the least, noisy and blurred
# ones the most.
SIGMAS_PX = (0.8, 1.1, 1.6, 2.4)
_START = 1
# The variances are estimates themselves: another smoothing must promise this much.
_WORTHWHILE = 0.9
_MAX_STEPS = 8
_CONVERGED_PX = 0.003
_LEAST_CONVERGED_PX = 0.1
_MAX_STEP_PX = 1.0
_MAX_DRIFT_PX = 3.0
_CELL_PX = 24
# A direction with this little of the information of the best one is not observed at all.
_LEAST_EIGENVALUE = 1e-3
# Patches that agree exactly would have infinite information; relative to their variance.
_LEAST_NOISE = 1e-7


@dataclass(frozen=True)
class Refinement:
    """A shift `t` such that `fixed(p + t)` lies on `moving(p)`.

    `ncc` is that of the smoothed patches, without their quadratic trends. `information` is the
    inverse covariance of `shift`, px^-2: zero along a direction that the content leaves open.
    `centre` is the middle of what carries that information, in voxels of `fixed`.
    `sigma` is the smoothing that was used, px.
    """

    shift: Vector
    ncc: float
    information: Float[np.ndarray, "d d"]
    centre: Vector
    sigma: float
    voxels: int


def refine(
    fixed: Patch,
    moving: Moving,
    fixed_mask: Bool[np.ndarray, "*patch"],
    moving_mask: Bool[np.ndarray, "*moving"],
    *,
    start: Sequence[int | float] | Vector,
    sigmas: Sequence[float],
    coarse_first: bool,
) -> Refinement | None:
    """Refines the shift from `start`, which must be right to about 1.5 px.

    Voxels outside the masks must be finite but do not count. `sigmas` (px, ascending) are the
    smoothings of which the one of least variance is taken. With `coarse_first` the widest goes
    first, which widens the reach. None where the patches do not overlap enough, hold nothing
    to go by, or the steps lead away from `start`.

    Raises:
        ValueError: ranks differ.
    """
    if not fixed.ndim == moving.ndim == len(start):
        raise ValueError(f"ranks differ: {fixed.shape}, {moving.shape}, start {tuple(start)}")
    pair = HalfwayPair(fixed, moving, fixed_mask, moving_mask)
    first = np.asarray(start, np.float64)
    begin = first
    if coarse_first:
        wide = _descend(pair, first, sigmas[-1], first)
        begin = wide.shift if wide is not None else first
    fits = (_descend(pair, begin, sigma, first) for sigma in reversed(sigmas[: _START + 1]))
    fit = next((f for f in fits if f is not None), None)
    if fit is None:
        return None
    best = _best_smoothing(pair, fit, sigmas)
    final = fit if best is fit else _descend(pair, best.shift, best.sigma, first)
    return _refinement(pair, final if final is not None else fit)


def _best_smoothing(pair: HalfwayPair, fit: _Fit, sigmas: Sequence[float]) -> _Fit:
    """The fit of least variance: tries less smoothing while that helps, else more."""
    best, at = fit, sigmas.index(fit.sigma)
    for way in (sigmas[:at][::-1], sigmas[at + 1 :]):
        for sigma in way:
            tried = _linearise(pair, fit.shift, sigma)
            if tried is None or tried.variance >= _WORTHWHILE * best.variance:
                break
            best = tried
        if best is not fit:
            break
    return best


def _descend(pair: HalfwayPair, start: Vector, sigma: float, origin: Vector) -> _Fit | None:
    """Steps until they are small; None where there is no way down or it leads too far."""
    shift = start
    for _ in range(_MAX_STEPS):
        fit = _linearise(pair, shift, sigma)
        if fit is None:
            return None
        size = float(np.abs(fit.step).max())
        if size < _CONVERGED_PX:
            return replace(fit, shift=shift + fit.step)
        shift = shift + fit.step * min(1.0, _MAX_STEP_PX / size)
        if np.abs(shift - origin).max() > _MAX_DRIFT_PX:
            return None
    return fit if size < _LEAST_CONVERGED_PX else None


@dataclass(frozen=True)
class _Fit:
    """One linearisation: where, which way on, and how well the shift is known."""

    shift: Vector
    sigma: float
    step: Vector
    information: Float[np.ndarray, "d d"]
    variance: float


def _linearise(pair: HalfwayPair, shift: Vector, sigma: float) -> _Fit | None:
    """The Gauss-Newton step from `shift`, and the variance of where it leads."""
    samples = pair.samples(shift, sigma)
    if samples is None:
        return None
    fixed, moving, support = samples.fixed, samples.moving, samples.support
    slope = (fixed[1:] + moving[1:]) / 2
    gains = samples.mean * support.trends[: len(fixed)]
    # A gain that rises across the smoothing filter moves what it sees: G * (x T) is
    # x (G * T) + sigma² (G * T)'. Left out, it would pass for a shift of up to 0.05 px.
    gains[1:] += np.float32(sigma**2) * support.rise[:, None] * slope
    gains = support.detrended(gains)
    gain_gram = inverse_gram(gains)
    jacobian = slope - ((slope @ gains.T) @ gain_gram).astype(np.float32) @ gains
    residual = fixed[0] - moving[0]
    residual = residual - ((residual @ gains.T) @ gain_gram).astype(np.float32) @ gains
    # The noise of the two gradients is independent: their product measures the signal
    # alone, where the square of the mean gradient would take noise for information.
    cross = (fixed[1:] @ moving[1:].T).astype(np.float64)
    on_gains = (slope @ gains.T).astype(np.float64)
    hessian = (cross + cross.T) / 2 - on_gains @ gain_gram @ on_gains.T
    values, vectors = np.linalg.eigh(hessian)
    if not values[-1] > 0:
        return None
    seen = values > _LEAST_EIGENVALUE * values[-1]
    values, vectors = values[seen], vectors[:, seen]
    inverse = (vectors / values) @ vectors.T
    step = -inverse @ (jacobian @ residual).astype(np.float64)
    residual = residual + step.astype(np.float32) @ jacobian
    noise = _score_scatter(jacobian * residual, inverse, support.weight.shape)
    variance = float(np.trace(inverse)) * noise if seen.all() else np.inf
    information = (vectors * values) @ vectors.T / max(noise, _LEAST_NOISE)
    return _Fit(shift, sigma, step, information, variance)


def _score_scatter(
    score: Float32[np.ndarray, "d n"], inverse: Float[np.ndarray, "d d"], shape: tuple[int, ...]
) -> float:
    """The scatter of the score over that of independent unit noise.

    Smoothing correlates neighbours, so scores are summed over cells first (a cluster-robust
    "sandwich"; Liang and Zeger 1986, doi 10.1093/biomet/73.1.13).
    """
    cells = score.reshape(len(score), *shape)
    for axis, n in enumerate(shape, start=1):
        side = min(_CELL_PX, max(1, n // 2))
        cells = np.add.reduceat(cells, np.arange(0, n - side + 1, side), axis=axis)
    sums = cells.reshape(len(score), -1).astype(np.float64)
    return float(np.trace(inverse @ (sums @ sums.T))) / len(score)


def _refinement(pair: HalfwayPair, fit: _Fit) -> Refinement | None:
    samples = pair.samples(fit.shift, fit.sigma)
    if samples is None:
        return None
    ncc = _ncc(samples)
    centre = samples.crop.start + samples.centre() + (fit.shift - np.rint(fit.shift)) / 2
    return Refinement(fit.shift, ncc, fit.information, centre, fit.sigma, samples.support.voxels)


def _ncc(samples: Samples) -> float:
    a, b = samples.fixed[0], samples.moving[0]
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale > 0 else 0.0
