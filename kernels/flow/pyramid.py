"""Mean pyramids of one image with unknown (NaN) voxels, padded to shapes that repeat.

Voxel 0 of a `k`-fold level has its centre at `(k - 1) / 2` of the full image. Images are padded
with NaN at their far ends to multiples of a bucket, so that images of nearly the same size share
one compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

# Half a voxel of smoothing would leave the gradients to the noise; more blurs small things.
_SIGMA_PX = 1.0
_RADIUS = 2
# A voxel of a level is known where at least half of what it averages is.
_LEAST_KNOWN = 0.5


def padded_shape(shape: Sequence[int], bucket: int) -> tuple[int, ...]:
    """`shape` rounded up to multiples of `bucket`."""
    return tuple(-(-n // bucket) * bucket for n in shape)


def padded(
    image: Float32[np.ndarray, "*image"],
    mask: Bool[np.ndarray, "*image"] | None,
    bucket: int,
    least: Sequence[int] | None = None,
) -> Float32[jax.Array, "*padded"]:
    """The image with NaN where `mask` is False or the image is not finite, and as padding; of a
    shape that is nowhere below `least`."""
    shape = image.shape if least is None else np.maximum(image.shape, least).tolist()
    out = np.full(padded_shape(shape, bucket), np.nan, np.float32)
    inner = out[tuple(slice(0, n) for n in image.shape)]
    inner[...] = image
    if mask is not None:
        inner[~mask] = np.nan
    inner[np.isinf(inner)] = np.nan
    return jax.device_put(out)


def pyramid(image: Float32[jax.Array, "*image"], levels: int) -> list[jax.Array]:
    """Levels 0 to `levels - 1`, each the 2-fold mean of the one before."""
    out = [image]
    for _ in range(levels - 1):
        out.append(_halved(out[-1]))
    return out


@jax.jit
def _halved(image: jax.Array) -> jax.Array:
    parts = [image]
    for axis in range(image.ndim):
        step: list[jax.Array] = []
        for part in parts:
            pairs = part.reshape(*part.shape[:axis], -1, 2, *part.shape[axis + 1 :])
            step += [jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2)]
        parts = step
    known = sum(jnp.isfinite(p).astype(jnp.float32) for p in parts)
    total = sum(jnp.where(jnp.isfinite(p), p, 0) for p in parts)
    enough = known >= _LEAST_KNOWN * len(parts)
    return jnp.where(enough, total / jnp.maximum(known, 1), jnp.nan)


def contrast(image: jax.Array | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the known voxels; (0, 0) where there are none."""
    values = np.asarray(image)
    values = values[np.isfinite(values)].astype(np.float64)
    return (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)


@partial(jax.jit, static_argnames="halo")
def smoothed(
    image: jax.Array, mean: float | jax.Array, deviation: float | jax.Array, *, halo: int
) -> jax.Array:
    """The image at mean 0 and deviation 1 behind a small Gaussian that skips unknown voxels,
    which stay unknown; with `halo` voxels of NaN around."""
    known = jnp.isfinite(image)
    # padded once for all axes: a padding before each axis costs more than the filter
    value = jnp.pad(jnp.where(known, (image - mean) / deviation, 0), _RADIUS)
    weight = jnp.pad(known.astype(jnp.float32), _RADIUS)
    x = np.arange(-_RADIUS, _RADIUS + 1)
    taps = np.exp(-0.5 * (x / _SIGMA_PX) ** 2)
    for axis in range(image.ndim):
        value, weight = (_filtered(a, taps / taps.sum(), axis) for a in (value, weight))
    out = jnp.where(known, value / jnp.where(known, weight, 1), jnp.nan)
    return jnp.pad(out, halo, constant_values=jnp.nan)


def _filtered(image: jax.Array, taps: np.ndarray, axis: int) -> jax.Array:
    """The image, shorter by the taps, behind a filter along one axis."""
    n = image.shape[axis] - len(taps) + 1
    parts = [
        np.float32(tap) * jax.lax.slice_in_dim(image, i, i + n, axis=axis)
        for i, tap in enumerate(taps)
    ]
    return sum(parts[1:], start=parts[0])
