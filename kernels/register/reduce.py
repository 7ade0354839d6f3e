"""Mean of the known voxels of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

# A voxel of the result is known where at least half of what it averages is.
_LEAST_KNOWN = 0.5


def mean_of_known(
    volume: Float32[np.ndarray, "_ _ _"], factors: Sequence[int]
) -> Float32[np.ndarray, "_ _ _"]:
    """A volume reduced by whole factors; NaN = not known.

    Voxel `i` of the result has its centre at `k i + (k - 1) / 2` of the volume. Blocks that the
    far edge cuts are known where half of a whole block is there.
    """
    if all(k == 1 for k in factors):
        return volume
    pad = [(0, -n % k) for n, k in zip(volume.shape, factors, strict=True)]
    wide = np.pad(volume, pad, constant_values=np.nan) if any(b for _, b in pad) else volume
    split = [m for n, k in zip(wide.shape, factors, strict=True) for m in (n // k, k)]
    blocks = wide.reshape(split)
    known = np.isfinite(blocks)
    axes = (1, 3, 5)
    if known.all():
        return blocks.mean(axis=axes, dtype=np.float64).astype(np.float32)
    count = known.sum(axis=axes)
    total = np.where(known, blocks, 0).sum(axis=axes, dtype=np.float64)
    enough = count >= _LEAST_KNOWN * np.prod(factors)
    return np.where(enough, total / np.maximum(count, 1), np.nan).astype(np.float32)
