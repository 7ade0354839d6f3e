"""Where each patch of a fixed image lies in a moving image, by correlation, batch by batch.

Patches are cut out on the device in batches of one fixed size, the last one filled up, so that
one compiled program serves every lattice and every image of nearly the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int

from warpbeam.kernels.flow.correlation import correlate
from warpbeam.kernels.flow.peaks import find_peaks

# Window voxels of one batch. A few times the second-level cache of a core; an accelerator wants
# thousands of patches at once.
_BATCH_VOXELS_CPU = 1 << 17
_BATCH_VOXELS_ACCELERATOR = 1 << 24


@dataclass(frozen=True)
class MatchSettings:
    """`patch` and `search` in voxels, array order; the search goes `search` far both ways.

    `min_overlap` is the fraction of a patch that must be known in both images. See
    `find_peaks` for `min_distance` and `sharpness_radius`.
    """

    patch: tuple[int, ...]
    search: tuple[int, ...]
    min_overlap: float = 0.25
    min_distance: int = 2
    sharpness_radius: int = 5


@dataclass(frozen=True)
class Matches:
    """One row per patch. `shift` is NaN where there was no peak within the search range.

    `significance` is the correlation in standard deviations of that of unrelated patches, and
    `grain` the voxels that count as one independent sample.
    """

    shift: Float32[np.ndarray, "n d"]
    ncc: Float32[np.ndarray, " n"]
    ratio: Float32[np.ndarray, " n"]
    sharpness: Float32[np.ndarray, " n"]
    significance: Float32[np.ndarray, " n"]
    grain: Float32[np.ndarray, " n"]


def match(
    fixed: Float32[jax.Array, "*fixed"],
    moving: Float32[jax.Array, "*moving"],
    settings: MatchSettings,
    *,
    corners: Int[np.ndarray, "n d"],
    starts: Int[np.ndarray, "n d"],
    batch: int | None = None,
) -> Matches:
    """Matches the patches of `fixed` whose first voxels are `corners`.

    `fixed[p]` of a patch lies on `moving[p + shift]`, with `shift` looked for around `starts`.
    NaN voxels, and those outside of the images, do not count. `batch` patches go at once; it
    defaults to what suits the window and the device. A result does not depend, to the bit, on
    which patches are matched along with it. (Another `batch` is another compiled program, which
    may round sums differently in the last place.)

    Raises:
        ValueError: ranks differ.
    """
    rank = fixed.ndim
    if not rank == moving.ndim == len(settings.patch) == len(settings.search) == corners.shape[1]:
        raise ValueError(
            f"ranks differ: {fixed.shape}, {moving.shape}, {settings}, corners {corners.shape}"
        )
    window = tuple(p + 2 * s for p, s in zip(settings.patch, settings.search, strict=True))
    size = batch or batch_size(window)
    margins = [settings.patch, window]
    images = [_with_margin(i, margin=m) for i, m in zip((fixed, moving), margins, strict=True)]
    firsts = [
        np.clip(first, -np.asarray(margin), np.asarray(image.shape)) + np.asarray(margin)
        for first, margin, image in zip(
            (corners, corners + starts - np.asarray(settings.search)),
            margins,
            (fixed, moving),
            strict=True,
        )
    ]
    parts = []
    for at in range(0, len(corners), size):
        rows = np.minimum(np.arange(at, at + size), len(corners) - 1)
        here, there = (first[rows].astype(np.int32) for first in firsts)
        parts.append(_match_batch(*images, here, there, settings=settings))
    if not parts:
        empty = np.empty(0, np.float32)
        return Matches(np.empty((0, rank), np.float32), *[empty] * 5)
    columns = [np.concatenate([np.asarray(p[i]) for p in parts])[: len(corners)] for i in range(6)]
    columns[0] = (columns[0] + starts - np.asarray(settings.search)).astype(np.float32)
    return Matches(*columns)


@partial(jax.jit, static_argnames="margin")
def _with_margin(image: jax.Array, *, margin: tuple[int, ...]) -> jax.Array:
    return jnp.pad(image, [(m, m) for m in margin], constant_values=jnp.nan)


def batch_size(window: Sequence[int]) -> int:
    """A power of two that suits the window and the device, whatever there is to match."""
    cpu = jax.default_backend() == "cpu"
    voxels = _BATCH_VOXELS_CPU if cpu else _BATCH_VOXELS_ACCELERATOR
    fitting = max(voxels // int(np.prod(window)), 1)
    return int(2 ** int(np.log2(fitting)))


@partial(jax.jit, static_argnames="settings")
def _match_batch(
    fixed: jax.Array,
    moving: jax.Array,
    here: jax.Array,
    there: jax.Array,
    *,
    settings: MatchSettings,
) -> tuple[jax.Array, ...]:
    rank = fixed.ndim
    window = tuple(p + 2 * s for p, s in zip(settings.patch, settings.search, strict=True))
    templates = _cut(fixed, here, settings.patch)
    found = correlate(templates, _cut(moving, there, window), min_overlap=settings.min_overlap)
    peaks = find_peaks(
        found.ncc,
        min_distance=(settings.min_distance,) * rank,
        sharpness_radius=(settings.sharpness_radius,) * rank,
    )
    overlap = found.overlap[(jnp.arange(len(here)), *peaks.voxel.T)]
    significance = peaks.value * jnp.sqrt(overlap / found.grain)
    return peaks.position, peaks.value, peaks.ratio, peaks.sharpness, significance, found.grain


def _cut(image: jax.Array, firsts: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda first: jax.lax.dynamic_slice(image, first, shape))(firsts)
