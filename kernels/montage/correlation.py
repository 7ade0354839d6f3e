"""Masked normalised cross-correlation of two patches, 2-D or 3-D, by FFT.

Every shift is normalised by the means and variances of just the valid voxels that overlap
at that shift (Padfield, "Masked object registration in the Fourier domain", IEEE Trans.
Image Process. 2012, doi 10.1109/TIP.2011.2181402). A shift `t` says that
`fixed[p + t]` lies on `moving[p]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int
from scipy import fft

Shift = Sequence[int] | Int[np.ndarray, " d"]
Patch = Float32[np.ndarray, "*patch"]
Mask = Bool[np.ndarray, "*patch"]
Window = Float32[np.ndarray, "*window"]


@dataclass(frozen=True)
class Correlation:
    """The correlation of two patches at every shift of a window.

    `ncc[i]` belongs to the shift `first + i` (px, array order): in -1..1, and 0 where fewer
    than the minimum of voxels overlap or one side is constant. `overlap[i]` counts the voxel
    pairs. `grain` is how many voxels count as one independent sample (>= 1): two unrelated
    patches with these autocorrelations have ncc of variance `grain / overlap`.
    """

    ncc: Window
    overlap: Window
    first: tuple[int, ...]
    grain: float

    def significance(self) -> Window:
        """`ncc` in standard deviations of the ncc of unrelated patches."""
        return self.ncc * np.sqrt(self.overlap / np.float32(self.grain))


def correlate(
    fixed: Patch,
    moving: Float32[np.ndarray, "*moving"],
    fixed_mask: Mask,
    moving_mask: Bool[np.ndarray, "*moving"],
    *,
    window: tuple[Shift, Shift],
    min_overlap: int,
) -> Correlation:
    """Correlates `moving` with `fixed` at each shift `window[0] <= t < window[1]`.

    Voxels outside the masks must be finite but do not count. Each pair of patches is
    normalised by itself alone.

    Raises:
        ValueError: ranks differ, or the window is empty.
    """
    low, high = window
    if not fixed.ndim == moving.ndim == len(low) == len(high):
        raise ValueError(
            f"ranks differ: fixed {fixed.shape}, moving {moving.shape}, window {low} to {high}"
        )
    if any(b <= a for a, b in zip(low, high, strict=True)):
        raise ValueError(f"no shift in the window {tuple(low)} to {tuple(high)}")
    padded = [
        fft.next_fast_len(max(n - a, m + b - 1, n, m), real=axis == fixed.ndim - 1)
        for axis, (n, m, a, b) in enumerate(zip(fixed.shape, moving.shape, low, high, strict=True))
    ]
    axes = tuple(range(1, fixed.ndim + 1))
    spectra_f = fft.rfftn(_moments(fixed, fixed_mask), padded, axes=axes)
    spectra_m = fft.rfftn(_moments(moving, moving_mask), padded, axes=axes).conj()
    f1, f2, fm = spectra_f
    m1, m2, mm = spectra_m
    products = np.stack([f1 * m1, f1 * mm, fm * m1, f2 * mm, fm * m2, fm * mm])
    surfaces = fft.irfftn(products, padded, axes=axes, overwrite_x=True)
    shifts = [np.arange(a, b) % p for a, b, p in zip(low, high, padded, strict=True)]
    cross, sum_f, sum_m, square_f, square_m, overlap = surfaces[(slice(None), *np.ix_(*shifts))]
    count = np.maximum(np.rint(overlap), 1)
    variance_f = square_f - sum_f**2 / count
    variance_m = square_m - sum_m**2 / count
    # A variance below the rounding of the transforms is that of a constant patch.
    floor = np.float32(1e-4)
    good = (count >= min_overlap) & (variance_f > floor * count) & (variance_m > floor * count)
    scale = np.sqrt(np.where(good, variance_f * variance_m, 1))
    ncc = np.where(good, (cross - sum_f * sum_m / count) / scale, 0)
    return Correlation(
        np.clip(ncc, -1, 1, dtype=np.float32),
        np.rint(overlap).astype(np.float32),
        tuple(int(a) for a in low),
        _grain(f1, m1, padded),
    )


def _moments(patch: Patch, mask: Mask) -> Float32[np.ndarray, "3 *patch"]:
    """The valid voxels brought to mean 0 and variance 1 (float32 sums of squares would
    cancel otherwise), their squares, and the mask."""
    stack = np.zeros((3, *patch.shape), np.float32)
    stack[2] = mask
    count = max(int(mask.sum()), 1)
    mean = float(np.sum(patch, where=mask, dtype=np.float64)) / count
    np.subtract(patch, np.float32(mean), out=stack[0], where=mask)
    deviation = float(np.sqrt(np.vdot(stack[0], stack[0]) / count))
    if deviation > 1e-6 * abs(mean):
        stack[0] /= np.float32(deviation)
    else:
        stack[0] = 0
    np.square(stack[0], out=stack[1])
    return stack


def _grain(fixed: np.ndarray, moving: np.ndarray, padded: Sequence[int]) -> float:
    """Bartlett's sum over all lags of the product of both autocorrelations, by Parseval."""
    power_f, power_m = (s.real**2 + s.imag**2 for s in (fixed, moving))
    weight = np.full(fixed.shape[-1], 2.0)
    weight[0] = 1
    if padded[-1] % 2 == 0:
        weight[-1] = 1
    total = float(np.prod(padded, dtype=np.float64))
    energy_f, energy_m = (
        float(p.sum(axis=tuple(range(p.ndim - 1)), dtype=np.float64) @ weight) / total
        for p in (power_f, power_m)
    )
    if energy_f == 0 or energy_m == 0:
        return 1.0
    product = (power_f * power_m).sum(axis=tuple(range(power_f.ndim - 1)), dtype=np.float64)
    return max(1.0, float(product @ weight) / total / (energy_f * energy_m))
