"""Stacks of sections with a known misalignment, and how well a map undoes it.

A section of a case is drawn from the true one at `p + d(p)`, with `d` a drift that is shared by
the section and a smooth warp of its own; so a map that moves p to `p + d(p)`, up to one smooth
gauge for the whole stack, aligns it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from flow_cases import sample
from scipy import ndimage


@dataclass(frozen=True)
class Case:
    """`sections` [z, y, x] as the microscope gave them, and each one's true displacement."""

    sections: np.ndarray
    drift: np.ndarray
    phases: np.ndarray
    amplitude: float

    def truth(self, z: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """`d` of section z at any points, [2, ...], px."""
        size = min(self.sections.shape[1:])
        out = []
        for axis in range(2):
            total = np.zeros(np.shape(y))
            for ky, kx, phase in self.phases[z, axis]:
                total = total + np.sin(2 * np.pi * (ky * y + kx * x) / size + phase)
            out.append(self.drift[z, axis] + self.amplitude / len(self.phases[z, axis]) * total)
        return np.stack(out)

    def place(self, z: int, true: np.ndarray) -> np.ndarray:
        """Where section z shows true points [2, ...]; NaN where it does not."""
        at = true.astype(float)
        for _ in range(50):  # the warps are gentle: each step leaves a fifth of the error
            at = true - self.truth(z, *at)
        last = np.reshape(self.sections.shape[1:], (2, *[1] * (at.ndim - 1))) - 1
        return np.where(((at >= 0) & (at <= last)).all(axis=0), at, np.nan)


def load_stack(folder: Path, axis: int = 0) -> np.ndarray:
    """All images of a folder, sorted by name, cut across an axis of the block: [z, y, x]."""
    names = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".tif", ".tiff"))
    block = np.stack([cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in names])
    return np.ascontiguousarray(np.moveaxis(block, axis, 0))


def synthetic_stack(depth: int, size: int) -> np.ndarray:
    """Texture that changes slowly along z: [z, y, x]."""
    rng = np.random.default_rng(0)
    layers = [ndimage.gaussian_filter(rng.normal(size=(depth, size, size)), (3 * s, s, s)) * s**1.5
              for s in (1.5, 3.0, 8.0)]  # fmt: skip
    total = sum(layer / layer.std() for layer in layers)
    return np.clip(128 + 25 * total, 1, 255).astype(np.uint8)


def sheared(
    stack: np.ndarray, *, amplitude: float = 4.0, waves: float = 1.0, seed: int = 0
) -> Case:
    """An aligned stack taken apart: steps of 0.45 px, one in fifty of 3 to 10 px, and a smooth
    warp of up to `amplitude` px in each section.

    Sections are drawn with a reflected margin; content near the border is made up.
    """
    rng = np.random.default_rng(seed)
    n, height, width = stack.shape
    steps = rng.normal(0, 0.45, (n, 2))
    large = rng.random(n) < 0.02
    angle = rng.uniform(0, 2 * np.pi, n)
    size = rng.uniform(3, 10, n)
    steps[large] = (size[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1))[large]
    steps[0] = 0
    drift = np.cumsum(steps, axis=0)
    phases = np.empty((n, 2, 3, 3))
    phases[..., :2] = rng.uniform(-waves, waves, (n, 2, 3, 2))
    phases[..., 2] = rng.uniform(0, 2 * np.pi, (n, 2, 3))
    case = Case(stack, drift, phases, amplitude)
    y, x = np.mgrid[:height, :width].astype(float)
    drawn = np.empty_like(stack)
    for z in range(n):
        u = case.truth(z, y, x)
        drawn[z] = np.clip(np.rint(sample(stack[z], y + u[0], x + u[1])), 0, 255)
    return Case(drawn, drift, phases, amplitude)


@dataclass(frozen=True)
class Score:
    """Residuals between neighbours, px, and the drift of each section's middle from the first
    one's, yx px."""

    residual: np.ndarray
    drift: np.ndarray

    @property
    def drift_px(self) -> np.ndarray:
        return np.linalg.norm(self.drift, axis=1)


def score(case: Case, true: np.ndarray, forward: Callable[[int, np.ndarray], np.ndarray]) -> Score:
    """Scores maps: what is one point of the true stack must come to one place.

    Args:
        case: with its truth.
        true: [2, ...] points of the true stack.
        forward: where points [2, ...] of a section go.
    """
    moved = [forward(z, case.place(z, true)) for z in range(len(case.sections))]
    apart = [np.linalg.norm(b - a, axis=0).ravel() for a, b in itertools.pairwise(moved)]
    middle = np.array([np.nanmedian((m - true).reshape(2, -1), axis=1) for m in moved])
    residual = np.concatenate(apart)
    return Score(residual[np.isfinite(residual)], middle - middle[0])
