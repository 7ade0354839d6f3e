"""Volume pairs whose displacement is known at every voxel.

The moving volume is the source; the fixed one shows the source at `T(p)`, with `T` an affine map
(2 degrees about an oblique axis, 3 % larger, 6 voxels) and a smooth warp. Gamma 0.85 and a bias
field of +-20 % lie on the moving one, and independent noise of 5 % on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

_NOISE = 0.05
_GAMMA = 0.85
_BIAS = 0.2


@dataclass(frozen=True)
class Pair:
    """`truth` [3, z, y, x]: fixed(p) shows moving(p + truth(p)); `seen`: where that is in view."""

    fixed: np.ndarray
    moving: np.ndarray
    truth: np.ndarray
    seen: np.ndarray

    def errors(self, displacement: np.ndarray) -> np.ndarray:
        """End-point errors over the voxels in view, voxels; NaN counts as not moved."""
        apart = np.nan_to_num(displacement) - self.truth
        return np.linalg.norm(apart[:, self.seen], axis=0)


def steepness(pair: Pair) -> float:
    """Root mean square of the gradient of the whole displacement over the voxels in view."""
    slopes = [np.gradient(part, axis=a) for part in pair.truth for a in range(3)]
    return float(np.sqrt(sum(s[pair.seen] ** 2 for s in slopes).mean()))


def rotation(degrees: float) -> np.ndarray:
    """About an oblique axis (Rodrigues)."""
    axis = np.array([0.6, 0.5, 0.62])
    axis /= np.linalg.norm(axis)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_matrix(shape, *, degrees=2.0, scale=1.03, shift=6.0) -> np.ndarray:
    """4 x 4, about the middle of a volume."""
    linear = rotation(degrees) * scale
    middle = (np.array(shape) - 1) / 2
    direction = np.array([0.5, -0.6, 0.62])
    offset = shift * direction / np.linalg.norm(direction)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, middle + offset - linear @ middle
    return matrix


def smooth_field(shape, *, sigma: float, largest: float, seed: int) -> np.ndarray:
    """Gaussian noise of a scale, [3, z, y, x], at most `largest` voxels long.

    Made on a coarse grid, where a filter of this width costs nothing.
    """
    step = max(int(sigma // 5), 1)
    rng = np.random.default_rng(seed)
    small = [-(-n // step) + 4 for n in shape]
    fields = (ndimage.gaussian_filter(rng.normal(size=small), sigma / step) for _ in range(3))
    inner = tuple(slice(0, n) for n in shape)
    field = np.stack([ndimage.zoom(f, step, order=3, grid_mode=True, mode="nearest")[inner]
                      for f in fields])  # fmt: skip
    return field * (largest / np.linalg.norm(field, axis=0).max())


def make_pair(
    source: np.ndarray,
    *,
    sigma: float = 24.0,
    largest: float = 5.0,
    bump: float = 0.0,
    matrix: np.ndarray | None = None,
    seed: int = 0,
) -> Pair:
    """A pair from a source volume with values of 0 to 1; with a `bump`, one place of it is
    dragged along x by so many voxels."""
    rng = np.random.default_rng(seed + 1)
    shape = source.shape
    matrix = affine_matrix(shape) if matrix is None else matrix
    grid = np.indices(shape, dtype=float)
    truth = np.tensordot(matrix[:3, :3] - np.eye(3), grid, 1) + matrix[:3, 3].reshape(3, 1, 1, 1)
    if largest:
        truth = truth + smooth_field(shape, sigma=sigma, largest=largest, seed=seed)
    truth[2] += bump * _bell(grid)
    at = grid + truth
    limit = np.reshape(shape, (3, 1, 1, 1)) - 1
    seen = ((at >= 0) & (at <= limit)).all(axis=0)
    fixed = ndimage.map_coordinates(source, at, order=3, mode="constant") * seen
    bias = smooth_field(shape, sigma=max(shape) / 4, largest=1.0, seed=seed + 7)[0]
    bias = 1 + _BIAS * bias / np.abs(bias).max()
    moving = np.clip(source, 0, None) ** _GAMMA * bias
    fixed, moving = (im + _NOISE * rng.normal(size=shape) for im in (fixed, moving))
    return Pair(_stored(fixed), _stored(moving), truth, seen)


def _bell(grid: np.ndarray) -> np.ndarray:
    """1 in one place of a volume, falling off within a half, a sixth and a quarter of its sides."""
    shape = np.reshape(grid.shape[1:], (3, 1, 1, 1))
    middle, width = (
        shape * np.reshape(v, (3, 1, 1, 1)) for v in ((1 / 2, 2 / 3, 2 / 3), (1 / 2, 1 / 6, 1 / 4))
    )
    return np.exp(-(((grid - middle) / width) ** 2).sum(axis=0) / 2)


def _stored(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(1000 * values + 500), 0, 65535).astype(np.uint16)


def real_source(path: Path, shape) -> np.ndarray:
    """The middle of a volume in a TIFF file, its 0.5 to 99.5 percentiles at 0 and 1."""
    import tifffile

    whole = tifffile.imread(path).astype(np.float32)
    part = whole[tuple(slice((n - m) // 2, (n - m) // 2 + m) if n >= m else slice(None)
                       for n, m in zip(whole.shape, shape, strict=True))]  # fmt: skip
    low, high = np.percentile(whole, [0.5, 99.5])
    return np.clip((part - low) / (high - low), 0, 2)


def filaments(shape, *, seed: int = 0) -> np.ndarray:
    """Random curved fibres and blobs, blurred a little; 0 to 1."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    count = max(int(np.prod(shape) / 8000), 8)
    size = np.array(shape)
    for _ in range(count):
        at, direction = rng.uniform(0, 1, 3) * size, rng.normal(size=3)
        for _ in range(int(rng.uniform(30, 120))):
            direction += 0.15 * rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            at = at + 0.7 * direction
            index = np.rint(at).astype(int)
            if (index >= 0).all() and (index < size).all():
                image[tuple(index)] = 1
    for at in rng.uniform(0, 1, (count // 2, 3)) * size:
        image[tuple(at.astype(int))] = 8
    image = ndimage.gaussian_filter(image, 1.3)
    return np.clip(image / np.quantile(image, 0.995), 0, 2)
