"""A chunk whose displacement is a closed formula: `FIXED(p)` shows `TEXTURE(p + BEND(p))`."""

import numpy as np
from scipy import ndimage

TEXTURE = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 40, 44)), 2.5)
TEXTURE = (1000 + 3000 * TEXTURE).astype(np.float32)
GRID = np.indices(TEXTURE.shape, dtype=float)
BEND = 1.5 * np.sin(GRID[[2, 0, 1]] / 9.0)
FIXED = ndimage.map_coordinates(TEXTURE, GRID + BEND, order=3, mode="nearest").astype(np.float32)
INNER = (slice(None), *(slice(6, -6),) * 3)


def apart(displacement):
    """Mean distance from the truth, voxels."""
    return float(np.linalg.norm((displacement - BEND)[INNER], axis=0).mean())


BEFORE = apart(np.zeros_like(BEND))
