"""Sub-pixel shift between two overlapping patches by symmetric Gauss-Newton steps.

Maximises the masked normalised cross-correlation. Both patches are moved, by half the shift
each, and the step uses the mean of both gradients (efficient second-order minimisation;
Benhimane and Malis 2004, doi 10.1109/IROS.2004.1389474), so that interpolation smooths both
alike and noise pulls to neither side. Interpolation, smoothing and differentiation are one
exact separable filter: a Gaussian and its derivative sampled at the shifted centre.

A gain that varies linearly over the patch and an offset that varies quadratically are fitted
along with the shift: that is what vignettes leave. A high-pass instead would see different
surroundings at the edges of either patch, and biases the shift by up to 0.02 px.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32

from warpbeam.kernels.montage.contrast import separable

Patch = Float32[np.ndarray, "*patch"]
Moving = Float32[np.ndarray, "*moving"]
Vector = Float[np.ndarray, " d"]

# Smoothing that the fit chooses from, px: sharp images favour the least, noisy and blurred
# ones the most.
SIGMAS_PX = (0.8, 1.5, 2.5)
_START = 1
_MAX_STEPS = 8
_CONVERGED_PX = 0.003
_MAX_STEP_PX = 1.0
_MAX_DRIFT_PX = 3.0
_LEAST_VOXELS = 64
_CELL_PX = 24
# A direction with this little of the information of the best one is not observed at all.
_LEAST_EIGENVALUE = 1e-3


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
    start: Sequence[float],
    coarse_first: bool,
) -> Refinement | None:
    """Refines the shift from `start`, which must be right to about 1.5 px.

    Voxels outside the masks must be finite but do not count. With `coarse_first` the widest
    smoothing goes first, which doubles the reach. None where the patches do not overlap
    enough, hold nothing to go by, or the steps lead away from `start`.

    Raises:
        ValueError: ranks differ.
    """
    if not fixed.ndim == moving.ndim == len(start):
        raise ValueError(f"ranks differ: {fixed.shape}, {moving.shape}, start {tuple(start)}")
    pair = _Pair(fixed, moving, fixed_mask, moving_mask)
    first = np.asarray(start, np.float64)
    best: _Fit | None = None
    order = sorted(SIGMAS_PX, key=lambda s: abs(s - SIGMAS_PX[_START]))
    if coarse_first:
        wide = _descend(pair, first, SIGMAS_PX[-1], first)
        first = wide.shift if wide is not None else first
    for sigma in order:
        # All but the starting sigma are only tried: one step tells the variance.
        fit = _descend(pair, first, sigma, first) if best is None else pair.fit(best.shift, sigma)
        if fit is not None and (best is None or fit.variance < best.variance):
            best = fit
    if best is None:
        return None
    final = _descend(pair, best.shift, best.sigma, first)
    return None if final is None else pair.result(final)


def _descend(pair: _Pair, start: Vector, sigma: float, origin: Vector) -> _Fit | None:
    """Steps until they are small; None where there is no way down or it leads too far."""
    shift = start
    for _ in range(_MAX_STEPS):
        fit = pair.fit(shift, sigma)
        if fit is None:
            return None
        size = float(np.abs(fit.step).max())
        if size < _CONVERGED_PX:
            return fit
        shift = shift + fit.step * min(1.0, _MAX_STEP_PX / size)
        if np.abs(shift - origin).max() > _MAX_DRIFT_PX:
            return None
    return fit


@dataclass(frozen=True)
class _Fit:
    """One linearisation: where, which way on, and how well the shift is known."""

    shift: Vector
    sigma: float
    step: Vector
    information: Float[np.ndarray, "d d"]
    variance: float


@dataclass
class _Crop:
    """The common part of both patches at a whole shift, in `fixed` from `start` on."""

    start: Float[np.ndarray, " d"]
    fixed: Patch
    moving: Patch
    mask: Bool[np.ndarray, "*patch"]
    supports: dict[int, _Support] = field(default_factory=dict)

    def support(self, radius: int) -> _Support | None:
        """Where a filter of `radius` sees valid voxels only; None where that is too little."""
        if radius not in self.supports:
            inner = tuple(slice(radius, n - radius) for n in self.mask.shape)
            if min(n - 2 * radius for n in self.mask.shape) < 1:
                return None
            weight = np.ones(self.mask[inner].shape, np.float32)
            if not self.mask.all():
                box = np.ones(2 * radius + 1, np.float32)
                seen = separable(self.mask.astype(np.float32), [box] * self.mask.ndim)
                weight = (seen[inner] > box.size**self.mask.ndim - 0.5).astype(np.float32)
            self.supports[radius] = _Support(inner, weight)
        return self.supports[radius]


class _Support:
    """The voxels that are compared, and the trends that are fitted over them."""

    def __init__(self, inner: tuple[slice, ...], weight: Patch) -> None:
        self.inner = inner
        self.weight = weight
        self.voxels = int(weight.sum())
        shape = weight.shape
        axes = np.meshgrid(
            *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
        )
        quadratic = [a * b for a, b in itertools.combinations_with_replacement(axes, 2)]
        trends = [np.ones((1,) * len(shape), np.float32), *axes, *quadratic]
        self.trends = np.stack([(weight * trend).ravel() for trend in trends])
        self.gram = np.linalg.pinv((self.trends @ self.trends.T).astype(np.float64))

    def detrended(self, values: Float32[np.ndarray, "k n"]) -> Float32[np.ndarray, "k n"]:
        """The part of each row, already weighted, that no quadratic trend explains."""
        on_trends = (values @ self.trends.T) @ self.gram
        return values - on_trends.astype(np.float32) @ self.trends


class _Pair:
    """Two patches and their common parts at whole shifts."""

    def __init__(
        self,
        fixed: Patch,
        moving: Moving,
        fixed_mask: Bool[np.ndarray, "*patch"],
        moving_mask: Bool[np.ndarray, "*moving"],
    ) -> None:
        self.patches = (_standard(fixed, fixed_mask), _standard(moving, moving_mask))
        self.masks = (fixed_mask, moving_mask)
        self.crops: dict[tuple[int, ...], _Crop | None] = {}

    def crop(self, whole: tuple[int, ...]) -> _Crop | None:
        if whole not in self.crops:
            shapes = [patch.shape for patch in self.patches]
            start = np.maximum(0, whole)
            stop = np.minimum(shapes[0], np.add(shapes[1], whole))
            if (stop <= start).any():
                self.crops[whole] = None
            else:
                a = tuple(map(slice, start, stop))
                b = tuple(map(slice, start - whole, stop - whole))
                self.crops[whole] = _Crop(
                    start.astype(np.float64),
                    np.ascontiguousarray(self.patches[0][a]),
                    np.ascontiguousarray(self.patches[1][b]),
                    self.masks[0][a] & self.masks[1][b],
                )
        return self.crops[whole]

    def samples(self, shift: Vector, sigma: float) -> _Samples | None:
        """Both patches at their half shifts; None where too little of them overlaps."""
        whole = np.rint(shift)
        crop = self.crop(tuple(int(w) for w in whole))
        radius = int(np.ceil(3 * sigma))
        support = crop.support(radius) if crop is not None else None
        if crop is None or support is None or support.voxels < _LEAST_VOXELS:
            return None
        half = (shift - whole) / 2
        a = _sample(crop.fixed, half, sigma, support)
        b = _sample(crop.moving, -half, sigma, support)
        return _Samples(crop, support, *(support.detrended(s) for s in (a, b)))

    def fit(self, shift: Vector, sigma: float) -> _Fit | None:
        """The Gauss-Newton step from `shift`, and the variance of where it leads."""
        samples = self.samples(shift, sigma)
        return None if samples is None else samples.fit(shift, sigma)

    def result(self, fit: _Fit) -> Refinement | None:
        samples = self.samples(fit.shift, fit.sigma)
        if samples is None:
            return None
        a, b = samples.fixed[0], samples.moving[0]
        ncc = float(a @ b / np.sqrt((a @ a) * (b @ b)))
        centre = samples.crop.start + samples.centre() + (fit.shift - np.rint(fit.shift)) / 2
        return Refinement(
            fit.shift, ncc, fit.information, centre, fit.sigma, samples.support.voxels
        )


@dataclass(frozen=True)
class _Samples:
    """Value and gradient (rows) of both patches at each voxel of the support (columns)."""

    crop: _Crop
    support: _Support
    fixed: Float32[np.ndarray, "d1 n"]
    moving: Float32[np.ndarray, "d1 n"]

    def fit(self, shift: Vector, sigma: float) -> _Fit | None:
        ndim = len(shift)
        mean = (self.fixed + self.moving) / 2
        gains = self.support.detrended(mean[0] * self.support.trends[: 1 + ndim])
        residual = self.fixed[0] - self.moving[0]
        gain_gram = np.linalg.pinv((gains @ gains.T).astype(np.float64))
        jacobian = mean[1:] - ((mean[1:] @ gains.T) @ gain_gram).astype(np.float32) @ gains
        # The noise of the two gradients is independent: their product measures the signal
        # alone, where the square of the mean gradient would take noise for information.
        cross = (self.fixed[1:] @ self.moving[1:].T).astype(np.float64)
        on_gains = (mean[1:] @ gains.T).astype(np.float64)
        hessian = (cross + cross.T) / 2 - on_gains @ gain_gram @ on_gains.T
        values, vectors = np.linalg.eigh(hessian)
        if not values[-1] > 0:
            return None
        seen = values > _LEAST_EIGENVALUE * values[-1]
        inverse = (vectors[:, seen] / values[seen]) @ vectors[:, seen].T
        step = -inverse @ (jacobian @ residual).astype(np.float64)
        residual = residual - ((residual @ gains.T) @ gain_gram).astype(np.float32) @ gains
        residual = residual + step.astype(np.float32) @ jacobian
        noise = self._score_scatter(jacobian * residual, inverse)
        if not (noise > 0 and seen.all()):
            variance = np.inf
        else:
            variance = float(np.trace(inverse)) * noise
        noise = max(noise, float(np.finfo(np.float32).eps))
        information = (vectors[:, seen] * values[seen]) @ vectors[:, seen].T / noise
        return _Fit(shift, sigma, step, information, variance)

    def _score_scatter(
        self, score: Float32[np.ndarray, "d n"], inverse: Float[np.ndarray, "d d"]
    ) -> float:
        """The scatter of the score over that of independent unit noise: smoothing correlates
        neighbours, so scores are summed over cells first (a cluster-robust "sandwich"; Liang
        and Zeger 1986, doi 10.1093/biomet/73.1.13)."""
        cells = score.reshape(len(score), *self.support.weight.shape)
        for axis, n in enumerate(self.support.weight.shape, start=1):
            side = min(_CELL_PX, max(1, n // 2))
            cells = np.add.reduceat(cells, np.arange(0, n - side + 1, side), axis=axis)
        sums = cells.reshape(len(score), -1).astype(np.float64)
        return float(np.trace(inverse @ (sums @ sums.T))) / len(score)

    def centre(self) -> Vector:
        """The mean position of the gradient's energy, in voxels of the crop."""
        energy = np.square(self.fixed[1:] + self.moving[1:]).sum(axis=0)
        energy = energy.reshape(self.support.weight.shape) * self.support.weight
        axes = range(energy.ndim)
        margins = [energy.sum(axis=tuple(a for a in axes if a != axis)) for axis in axes]
        return np.array(
            [
                np.average(np.arange(len(m), dtype=np.float64), weights=m) + inner.start
                for m, inner in zip(margins, self.support.inner, strict=True)
            ]
        )


def _standard(patch: Patch, mask: Bool[np.ndarray, "*patch"]) -> Patch:
    """The valid voxels at mean 0 and variance 1, the others 0."""
    count = max(int(mask.sum()), 1)
    mean = np.sum(patch, where=mask, dtype=np.float64) / count
    centred = np.where(mask, patch - np.float32(mean), np.float32(0))
    deviation = np.sqrt(np.vdot(centred, centred) / count)
    return centred / deviation if deviation > 0 else centred


def _sample(patch: Patch, at: Vector, sigma: float, support: _Support) -> np.ndarray:
    """Value, then derivative along each axis, at `p + at` for each voxel p; weighted."""
    radius = int(np.ceil(3 * sigma))
    taps = [_taps(sigma, float(a), radius) for a in at]
    rows = [[value for value, _ in taps]]
    for axis in range(patch.ndim):
        rows.append([tap[axis == i] for i, tap in enumerate(taps)])
    return np.stack([(separable(patch, row)[support.inner] * support.weight).ravel() for row in rows])


def _taps(
    sigma: float, at: float, radius: int
) -> tuple[Float32[np.ndarray, "_"], Float32[np.ndarray, "_"]]:
    """A Gaussian of sum 1 sampled around `at`, and its exact derivative by `at`."""
    offset = np.arange(-radius, radius + 1) - at
    value = np.exp(-0.5 * (offset / sigma) ** 2)
    value /= value.sum()
    slope = value * (offset - value @ offset) / sigma**2
    return value.astype(np.float32), slope.astype(np.float32)
