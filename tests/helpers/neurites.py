"""Stacks of sections through drifting neurites, whose segmentation is known.

Cells of a moving Voronoi diagram, parted by dark membranes; organelles go on through several
sections, noise does not. Every section is displaced by a field of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy import ndimage

MARGIN = 40
Jitter = Literal["none", "shift", "elastic"]


@dataclass(frozen=True)
class Neurites:
    """Attributes:
    images: `[z, y, x]`, uint8.
    truth: `[z, y, x]`, int64: the neurite of each pixel, 0 on membranes.
    """

    images: np.ndarray
    truth: np.ndarray


def neurites(
    jitter: Jitter,
    *,
    depth: int = 24,
    size: int = 400,
    count: int = 210,
    jitter_px: float = 10.0,
    seed: int = 0,
) -> Neurites:
    """`count` neurites in a field that is wider than the sections by `MARGIN` on each side."""
    rng = np.random.default_rng(seed)
    wide = size + 2 * MARGIN
    at = rng.uniform(0, wide, (count, 2))
    step = rng.normal(0, 0.8, (count, 2))
    weight = rng.uniform(0, 200, count)
    organelles = ndimage.gaussian_filter(rng.normal(size=(depth, wide, wide)), (1.5, 3, 3))
    organelles *= 18 / organelles.std()
    images, truth = [], []
    for z in range(depth):
        labels, membrane = _cells(at, weight, wide)
        grey = 160 + organelles[z] - 100 * ndimage.gaussian_filter(membrane.astype(float), 1.0)
        x, y = _positions(rng, jitter, size, jitter_px)
        labels = cv2.remap(np.where(membrane, 0, labels).astype(np.int32), x, y, cv2.INTER_NEAREST)
        grey = cv2.remap(grey.astype(np.float32), x, y, cv2.INTER_LINEAR)
        grey += rng.normal(0, 12, grey.shape)
        images.append(np.clip(grey, 0, 255).astype(np.uint8))
        truth.append(labels)
        step = 0.8 * step + rng.normal(0, 0.5, (count, 2))
        at = at + step
    return Neurites(np.stack(images), np.stack(truth).astype(np.int64))


def _cells(at: np.ndarray, weight: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each pixel, numbered from 1, and whether it is a membrane."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    nearest = np.full((size, size), np.inf, np.float32)
    owner = np.zeros((size, size), np.int64)
    for k, ((py, px), w) in enumerate(zip(at, weight, strict=True), start=1):
        far = (y - py) ** 2 + (x - px) ** 2 - w
        closer = far < nearest
        owner[closer], nearest = k, np.minimum(far, nearest)
    edge = np.zeros(owner.shape, bool)
    edge[:-1] |= owner[:-1] != owner[1:]
    edge[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    return owner, ndimage.binary_dilation(edge, np.ones((3, 3)))


def _positions(
    rng: np.random.Generator, jitter: Jitter, size: int, most: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where in the wide field each pixel of a section lies, x and y."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + MARGIN
    if jitter == "none":
        return x, y
    nodes = rng.uniform(-most, most, (2, 1, 1) if jitter == "shift" else (2, 6, 6))
    u = [cv2.resize(n.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
         for n in nodes]  # fmt: skip
    return x + u[1], y + u[0]
