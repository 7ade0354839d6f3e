"""Small pairs of volumes whose displacement is known at every point.

The moving volume is a truth made of plane waves; the fixed one shows it at `T(p)`, sampled exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from phantoms import Waves


@dataclass(frozen=True)
class Pair:
    """`fixed(p)` shows `moving(T(p))`: an affine map and one smooth bend."""

    shape: tuple[int, int, int]
    matrix: np.ndarray
    amplitude: float

    def target(self, points: np.ndarray) -> np.ndarray:
        """`T` at points `(..., 3)`, voxels."""
        waves = 2 * np.pi * points[..., ::-1] / max(self.shape) + np.array([0.3, 1.1, 2.0])
        bent = points + self.amplitude * np.sin(waves)
        return bent @ self.matrix[:3, :3].T + self.matrix[:3, 3]


def make_pair(
    shape: tuple[int, int, int] = (40, 72, 80),
    *,
    amplitude: float = 1.5,
    shift: float = 4.0,
    degrees: float = 2.0,
) -> Pair:
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    linear = 1.02 * turn
    middle = (np.array(shape) - 1) / 2
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = middle - linear @ middle + shift * np.array([0.5, -1.0, 1.5])
    return Pair(shape, matrix, amplitude)


def content(seed: int = 0) -> Waves:
    return Waves.random(seed, 3, wavelengths=(7.0, 40.0), count=80, spread=45.0)


def draw(pair: Pair, *, noise: float = 4.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Fixed and moving volume, uint16, the moving one darker and with another contrast."""
    rng, truth = np.random.default_rng(seed), content(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, pair.shape), indexing="ij"), -1).astype(float)
    fixed, moving = truth.at(pair.target(grid)), 0.8 * truth.at(grid) + 60
    made = (im + rng.normal(0, noise, pair.shape) for im in (fixed, moving))
    first, second = (np.clip(np.rint(10 * im + 500), 0, 65535).astype(np.uint16) for im in made)
    return first, second


def write_pair(folder: Path, pair: Pair, **settings: float) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "fixed.tif", folder / "moving.tif"
    for path, volume in zip(paths, draw(pair, **settings), strict=True):
        tifffile.imwrite(path, volume, photometric="minisblack")
    return paths
