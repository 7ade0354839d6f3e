"""Masked normalised cross-correlation of batches of patches over a limited search range.

Every shift is normalised by the means and variances of just the valid voxels that overlap at
that shift (Padfield, "Masked object registration in the Fourier domain", IEEE Trans. Image
Process. 2012, doi 10.1109/TIP.2011.2181402). The template of the fixed image is smaller than
the window of the moving image, and the transforms have the size of the window, not of the sum
of both: the shifts that wrap around are those that are not asked for.

Every reduction is over one patch, so that no result depends on what else is in the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from scipy import fft

# A variance below the rounding of the transforms is that of a constant patch.
_LEAST_VARIANCE = 1e-4


class Correlation(NamedTuple):
    """The correlation of each patch of a batch at every shift.

    `ncc[b, i]` belongs to the shift `i` (voxels, array order): `fixed[p]` lies on
    `moving[p + i]`. In -1..1, and NaN where fewer than the minimum of voxels overlap or one
    side is constant. `overlap` counts the voxel pairs. `grain` is how many voxels count as one
    independent sample (>= 1): unrelated patches with these autocorrelations have ncc of
    variance `grain / overlap`.
    """

    ncc: Float32[jax.Array, "b *shifts"]
    overlap: Float32[jax.Array, "b *shifts"]
    grain: Float32[jax.Array, " b"]


def correlate(
    fixed: Float32[jax.Array, "b *patch"],
    moving: Float32[jax.Array, "b *window"],
    *,
    min_overlap: float,
) -> Correlation:
    """Correlates each `fixed[b]` with `moving[b]` at each shift that keeps it inside.

    NaN voxels do not count. `min_overlap` is a fraction of the patch.

    Raises:
        ValueError: ranks differ, or the window is smaller than the patch.
    """
    patch, window = fixed.shape[1:], moving.shape[1:]
    if len(patch) != len(window) or any(w < p for p, w in zip(patch, window, strict=True)):
        raise ValueError(f"a patch of {patch} has no shift in a window of {window}")
    rank = len(patch)
    padded = [fft.next_fast_len(n, real=axis == rank - 1) for axis, n in enumerate(window)]
    axes = tuple(range(-rank, 0))
    f1, f2, f0 = (jnp.fft.rfftn(x, padded, axes=axes).conj() for x in _moments(fixed))
    m1, m2, m0 = (jnp.fft.rfftn(x, padded, axes=axes) for x in _moments(moving))
    shifts = (slice(None), *(slice(0, w - p + 1) for p, w in zip(patch, window, strict=True)))

    def back(product: jax.Array) -> jax.Array:
        return jnp.fft.irfftn(product, padded, axes=axes)[shifts]

    overlap = jnp.rint(back(f0 * m0))
    count = jnp.maximum(overlap, 1)
    sum_f, sum_m = back(f1 * m0), back(f0 * m1)
    variance_f = back(f2 * m0) - sum_f**2 / count
    variance_m = back(f0 * m2) - sum_m**2 / count
    size = 1.0
    for n in patch:
        size *= n
    floor = _LEAST_VARIANCE * count
    good = (overlap >= max(1.0, min_overlap * size)) & (variance_f > floor) & (variance_m > floor)
    scale = jnp.sqrt(jnp.where(good, variance_f * variance_m, 1))
    ncc = jnp.clip((back(f1 * m1) - sum_f * sum_m / count) / scale, -1, 1)
    return Correlation(jnp.where(good, ncc, jnp.nan), overlap, _grain(f1, m1, padded))


def _moments(
    patches: Float32[jax.Array, "b *patch"],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The valid voxels brought to mean 0 and variance 1 (float32 sums of squares would cancel
    otherwise), their squares, and the mask."""
    axes = tuple(range(1, patches.ndim))
    valid = jnp.isfinite(patches)
    mask = valid.astype(jnp.float32)
    count = jnp.maximum(mask.sum(axes, keepdims=True), 1)
    mean = jnp.where(valid, patches, 0).sum(axes, keepdims=True) / count
    centred = jnp.where(valid, patches - mean, 0)
    deviation = jnp.sqrt((centred**2).sum(axes, keepdims=True) / count)
    real = deviation > 1e-6 * jnp.abs(mean)
    unit = jnp.where(real, centred / jnp.where(real, deviation, 1), 0)
    return unit, unit**2, mask


def _grain(fixed: jax.Array, moving: jax.Array, padded: list[int]) -> Float32[jax.Array, " b"]:
    """Bartlett's sum over all lags of the product of both autocorrelations, by Parseval."""
    axes = tuple(range(1, fixed.ndim))
    weight = np.full(fixed.shape[-1], 2.0, np.float32)
    weight[0] = 1
    if padded[-1] % 2 == 0:
        weight[-1] = 1
    power_f, power_m = (s.real**2 + s.imag**2 for s in (fixed, moving))
    total = 1.0
    for n in padded:
        total *= n
    energy_f, energy_m = ((p * weight).sum(axes) / total for p in (power_f, power_m))
    energy = energy_f * energy_m
    product = (power_f * power_m * weight).sum(axes) / total
    return jnp.maximum(jnp.where(energy > 0, product / jnp.where(energy > 0, energy, 1), 1), 1)
