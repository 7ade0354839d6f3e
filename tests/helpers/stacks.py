"""Small stacks of sections whose misalignment is known at every point.

A section shows a truth made of plane waves at `p + d(p)`, sampled exactly, so that a map which
moves p to `p + d(p)` (up to a shift of the whole stack) is right.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from phantoms import Waves


@dataclass(frozen=True)
class Stack:
    """Drift and one smooth bend per section; `shape` yx."""

    shape: tuple[int, int]
    drift: np.ndarray
    amplitude: float
    phase: np.ndarray

    def displacement(self, z: int, points: np.ndarray) -> np.ndarray:
        """`d` at points `(..., 2)`, px."""
        waves = 2 * np.pi * points[..., ::-1] / max(self.shape) + self.phase[z]
        return self.drift[z] + self.amplitude * np.sin(waves)

    def section(self, z: int, truth: Waves) -> np.ndarray:
        grid = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).astype(float)
        there = grid + self.displacement(z, grid)
        depth = np.full((*self.shape, 1), float(z))
        return np.clip(truth.at(np.concatenate([depth, there], -1)), 0, 255).astype(np.uint8)


def make_stack(
    depth: int = 8,
    shape: tuple[int, int] = (160, 176),
    *,
    step: float = 1.5,
    amplitude: float = 1.0,
    seed: int = 0,
) -> Stack:
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, step, (depth, 2)), axis=0)
    return Stack(shape, drift - drift[0], amplitude, rng.uniform(0, 2 * np.pi, (depth, 2)))


def content(seed: int = 0) -> Waves:
    """Texture that changes slowly along z, as thin sections of one block do."""
    waves = Waves.random(seed, 3, wavelengths=(8.0, 60.0), count=60, spread=45.0)
    vectors = waves.vectors * np.array([0.1, 1.0, 1.0])
    return Waves(vectors, waves.phases, waves.amplitudes, 128.0)


def write_stack(folder: Path, stack: Stack, *, blank: tuple[int, ...] = (), seed: int = 0) -> Path:
    """One TIFF per section; `blank` ones show nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = content(seed)
    for z in range(len(stack.drift)):
        image = stack.section(z, truth)
        if z in blank:
            image[:] = 128
        tifffile.imwrite(folder / f"sec_{z:03d}.tif", image, compression="zlib", rowsperstrip=16)
    return folder


def residuals(stack: Stack, forward: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """How much neighbours disagree at `points`, px: `(sections - 1, n)`.

    `forward` holds, per section, where the points go.
    """
    errors = [m - points - stack.displacement(z, points) for z, m in enumerate(forward)]
    return np.stack([np.linalg.norm(b - a, axis=-1) for a, b in itertools.pairwise(errors)])
