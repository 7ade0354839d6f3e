"""Two patches sampled where each is moved by half of the shift between them.

Interpolation, smoothing and differentiation are one exact separable filter: a Gaussian and
its derivative sampled at the shifted centre. As both patches are moved by the same amount, in
opposite directions, they are smoothed alike.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32

from warpbeam.kernels.montage.contrast import separable

Patch = Float32[np.ndarray, "*patch"]
Moving = Float32[np.ndarray, "*moving"]
Vector = Float[np.ndarray, " d"]

_LEAST_VOXELS = 64
# Below this share of the largest eigenvalue, float32 sums are rounding.
_ROUNDING = 1e-6


def inverse_gram(rows: Float32[np.ndarray, "k n"]) -> Float[np.ndarray, "k k"]:
    """The pseudo-inverse of the inner products of rows that may depend on each other."""
    gram = (rows @ rows.T).astype(np.float64)
    return np.linalg.pinv(gram, rcond=_ROUNDING, hermitian=True)


@dataclass(frozen=True)
class Samples:
    """Value and gradient (rows) of both patches at each voxel of the support (columns).

    Both are without their quadratic trends; `mean` is the mean value of both with them.
    """

    crop: _Crop
    support: Support
    fixed: Float32[np.ndarray, "d1 n"]
    moving: Float32[np.ndarray, "d1 n"]
    mean: Float32[np.ndarray, " n"]

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


@dataclass
class _Crop:
    """The common part of both patches at a whole shift, in `fixed` from `start` on."""

    start: Float[np.ndarray, " d"]
    fixed: Patch
    moving: Patch
    mask: Bool[np.ndarray, "*patch"]
    supports: dict[int, Support] = field(default_factory=dict)

    def support(self, radius: int) -> Support | None:
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
            self.supports[radius] = Support(inner, weight)
        return self.supports[radius]


class Support:
    """The voxels that are compared, and the trends that are fitted over them.

    The first trends are 1 and, along each axis, -1 to 1: by `rise` per voxel.
    """

    def __init__(self, inner: tuple[slice, ...], weight: Patch) -> None:
        self.inner = inner
        self.weight = weight
        self.voxels = int(weight.sum())
        shape = weight.shape
        axes = np.meshgrid(
            *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
        )
        self.rise = np.array([2 / (n - 1) if n > 1 else 0 for n in shape], np.float32)
        quadratic = [a * b for a, b in itertools.combinations_with_replacement(axes, 2)]
        trends = [np.ones((1,) * len(shape), np.float32), *axes, *quadratic]
        self.trends = np.stack([(weight * trend).ravel() for trend in trends])
        self.gram = inverse_gram(self.trends)

    def detrended(self, values: Float32[np.ndarray, "k n"]) -> Float32[np.ndarray, "k n"]:
        """The part of each row, already weighted, that no quadratic trend explains."""
        on_trends = (values @ self.trends.T) @ self.gram
        return values - on_trends.astype(np.float32) @ self.trends


class HalfwayPair:
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

    def samples(self, shift: Vector, sigma: float) -> Samples | None:
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
        mean = (a[0] + b[0]) / 2
        return Samples(crop, support, support.detrended(a), support.detrended(b), mean)


def _standard(patch: Patch, mask: Bool[np.ndarray, "*patch"]) -> Patch:
    """The valid voxels at mean 0 and variance 1, the others 0."""
    count = max(int(mask.sum()), 1)
    mean = np.sum(patch, where=mask, dtype=np.float64) / count
    centred = np.where(mask, patch - np.float32(mean), np.float32(0))
    deviation = np.sqrt(np.vdot(centred, centred) / count)
    return centred / deviation if deviation > 0 else centred


def _sample(patch: Patch, at: Vector, sigma: float, support: Support) -> np.ndarray:
    """Value, then derivative along each axis, at `p + at` for each voxel p; weighted."""
    radius = int(np.ceil(3 * sigma))
    taps = [_taps(sigma, float(a), radius) for a in at]
    rows = [[value for value, _ in taps]]
    for axis in range(patch.ndim):
        rows.append([tap[axis == i] for i, tap in enumerate(taps)])
    return np.stack(
        [(separable(patch, row)[support.inner] * support.weight).ravel() for row in rows]
    )


def _taps(
    sigma: float, at: float, radius: int
) -> tuple[Float32[np.ndarray, "_"], Float32[np.ndarray, "_"]]:
    """A Gaussian of sum 1 sampled around `at`, and its exact derivative by `at`."""
    offset = np.arange(-radius, radius + 1) - at
    value = np.exp(-0.5 * (offset / sigma) ** 2)
    value /= value.sum()
    slope = value * (offset - value @ offset) / sigma**2
    return value.astype(np.float32), slope.astype(np.float32)
