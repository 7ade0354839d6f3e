"""Small volumes of objects whose labels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.volume_spec import VolumeSpec

SHAPE = (20, 70, 90)


def threads(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A random mask of crooked, touching threads, many of which cross many blocks."""
    noise = np.random.default_rng(seed).random(shape)
    smooth = ndimage.gaussian_filter(noise, 1.2)
    return smooth > np.quantile(smooth, 0.72)


def grey_of(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """uint16: a mask, bright on a dark, noisy background."""
    rng = np.random.default_rng(seed)
    return (300 + 900 * mask + rng.normal(0, 40, mask.shape)).astype(np.uint16)


def write_image(uri: Path, pixels: np.ndarray, voxel: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    """An OME-Zarr with small chunks and three levels."""
    spec = VolumeSpec(
        str(uri), (1, 1, *pixels.shape), str(pixels.dtype), (1, 1, 8, 32, 32), (1, 1, 8, 32, 32),
        voxel=voxel, unit="micrometer", factors=((1, 2, 2), (2, 2, 2)),
    )  # fmt: skip
    made = volume.create(spec)
    grid = made.level(0).shard_grid
    for box in map(grid.box, grid.indices()):
        made.write_with_levels(box, np.ascontiguousarray(pixels[None, None][box.slices]))
    for k in spec.group_starts[1:]:
        for index in made.level(k).shard_grid.indices():
            made.build_shard(k, index)
    return uri


def balls(
    shape: tuple[int, ...], seed: int = 1, count: int = 26, radius: tuple[float, float] = (7, 9)
) -> np.ndarray:
    """Balls that touch, as labels, none of which covers the middle of another."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    centres, depth, labels = [], np.zeros(shape), np.zeros(shape, int)
    for _ in range(4000):
        centre, r = rng.uniform(4, np.subtract(shape, 4)), rng.uniform(*radius)
        if all(np.linalg.norm(centre - c) > 0.85 * (r + q) for c, q in centres):
            centres.append((centre, r))
            inside = 1 - np.linalg.norm(grid - centre, axis=-1) / r
            labels[inside > depth] = len(centres)
            depth = np.maximum(depth, inside)
        if len(centres) == count:
            break
    return labels


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label volumes part the voxels in the same way."""
    pairs = np.unique(np.stack([a.ravel().astype(np.uint64), b.ravel().astype(np.uint64)]), axis=1)
    return np.unique(pairs[0]).size == pairs.shape[1] == np.unique(pairs[1]).size
