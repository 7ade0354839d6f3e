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
from jaxtyping import Bool, Float, Float32, Int
from scipy import fft

Shift = Sequence[int] | Int[np.ndarray, " d"]
Patch = Float32[np.ndarray, "*patch"]
Mask = Bool[np.ndarray, "*patch"]
Window = Float32[np.ndarray, "*window"]
Moments = Float[np.ndarray, "3 *patch"]
MovingMoments = Float[np.ndarray, "3 *moving"]
Sums = Float[np.ndarray, "6 *window"]
Spectra = tuple[np.ndarray, np.ndarray]
Shifts = Int[np.ndarray, " _"]


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
    shifts = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    f, m = _moments(fixed, fixed_mask), _moments(moving, moving_mask)
    whole = fixed_mask.all() and moving_mask.all()
    sums, spectra = (_sums_of_all if whole else _sums_of_valid)(f, m, shifts, padded)
    cross, sum_f, sum_m, square_f, square_m, overlap = sums
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
        _grain(*spectra, padded),
    )


def _sums_of_valid(
    fixed: Moments, moving: MovingMoments, shifts: Sequence[Shifts], padded: Sequence[int]
) -> tuple[Sums, Spectra]:
    """Sums over the voxels that are valid on both sides, at each shift: of `fm, f, m, ff, mm, 1`.

    Returns also the spectra of `f` and of the conjugate of `m`.
    """
    axes = tuple(range(1, fixed.ndim))
    spectra_f = fft.rfftn(fixed, padded, axes=axes)
    spectra_m = fft.rfftn(moving, padded, axes=axes).conj()
    f1, f2, fm = spectra_f
    m1, m2, mm = spectra_m
    products = np.stack([f1 * m1, f1 * mm, fm * m1, f2 * mm, fm * m2, fm * mm])
    return _inverse(products, shifts, padded), (f1, m1)


def _sums_of_all(
    fixed: Moments, moving: MovingMoments, shifts: Sequence[Shifts], padded: Sequence[int]
) -> tuple[Sums, Spectra]:
    """The same where all voxels are valid: what overlaps is a box, and only the products of both
    sides need a transform."""
    f1, m1 = (fft.rfftn(patch[0], padded) for patch in (fixed, moving))
    m1 = m1.conj()
    cross = _inverse(f1 * m1, shifts, padded)
    at_f, at_m = [], []
    for t, n, m in zip(shifts, fixed.shape[1:], moving.shape[1:], strict=True):
        p, q = np.arange(n) - t[:, None], np.arange(m) + t[:, None]
        at_f.append((p >= 0) & (p < m))
        at_m.append((q >= 0) & (q < n))
    sum_f, square_f, overlap = _box_sums(fixed, at_f)
    sum_m, square_m, _ = _box_sums(moving, at_m)
    return np.stack([cross, sum_f, sum_m, square_f, square_m, overlap]), (f1, m1)


def _inverse(
    spectra: np.ndarray, shifts: Sequence[Shifts], padded: Sequence[int]
) -> Float[np.ndarray, "*window"]:
    """The inverse transform along the last axes, of one axis after another, at the shifts alone."""
    *first, last = range(spectra.ndim - len(padded), spectra.ndim)
    for axis, t, p in zip(first, shifts, padded, strict=False):
        spectra = fft.ifft(spectra, axis=axis, overwrite_x=True).take(t % p, axis)
    return fft.irfft(spectra, padded[-1], axis=last).take(shifts[-1] % padded[-1], last)


def _box_sums(
    moments: Moments, inside: Sequence[Bool[np.ndarray, "_ _"]]
) -> Float[np.ndarray, "3 *window"]:
    """Sums over all boxes: `inside` says of each axis which voxels a shift's box holds."""
    for axis, rows in enumerate(inside, start=1):
        along = np.moveaxis(moments, axis, -1) @ rows.T.astype(np.float32)
        moments = np.moveaxis(along, -1, axis)
    return moments


def _moments(patch: Patch, mask: Mask) -> Moments:
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
