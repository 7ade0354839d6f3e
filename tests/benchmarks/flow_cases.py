"""Image pairs with a known flow: warped mosaics of real sections, and neighbouring sections."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SHIFT = (9.6, -7.2)


def displacement(
    y: np.ndarray, x: np.ndarray, *, size: float, amplitude: float = 8.0, seed: int = 0
):
    """A smooth displacement (yx) of up to 2 cycles over `size`, and `SHIFT`."""
    rng = np.random.default_rng(seed)
    out = []
    for shift in SHIFT:
        total = 0.0
        for _ in range(3):
            ky, kx = rng.uniform(-2, 2, 2)
            phase = rng.uniform(0, 2 * np.pi)
            total = total + np.sin(2 * np.pi * (ky * y + kx * x) / size + phase)
        out.append(shift + amplitude / 3 * total)
    return np.stack(out)


def sections(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(folder.glob("*.tif"))]


def mosaic(images: list[np.ndarray], size: int) -> np.ndarray:
    """Four quarters of different sections side by side."""
    h = -(-size // 2)
    a, b, c, d = (im[:h, :h] for im in (images[0], images[1], images[2], images[3]))
    return np.block([[a, b], [c, d]])[:size, :size].astype(np.float32)


def sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return cv2.remap(
        image.astype(np.float32),
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def synthetic(images: list[np.ndarray], size: int = 1024, *, seed: int = 0, masked: float = 0.0):
    """`fixed`, `moving`, masks (or None) and the true displacement function of (y, x)."""
    rng = np.random.default_rng(seed)
    margin = 32
    big = mosaic(images, size + 2 * margin)
    y, x = np.mgrid[:size, :size].astype(float)
    u = displacement(y, x, size=1024, seed=seed)
    warped = sample(big, y + u[0] + margin, x + u[1] + margin)
    moving = big[margin:-margin, margin:-margin]
    fixed = 255 * np.clip(warped / 255, 0, 1) ** 1.3 * 0.75 + 25
    fixed, moving = (
        np.clip(np.rint(im + rng.normal(0, 8, im.shape)), 0, 255).astype(np.float32)
        for im in (fixed, moving)
    )
    masks = [None, None]
    if masked:
        for i in range(2):
            noise = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 12)
            masks[i] = noise < np.quantile(noise, 1 - masked)
        for im, mask in zip((fixed, moving), masks, strict=True):
            im[~mask] = rng.uniform(0, 255, (~mask).sum())
    return fixed, moving, masks, lambda y, x: displacement(y, x, size=1024, seed=seed)


def neighbours(first: np.ndarray, second: np.ndarray, *, seed: int = 0):
    """`first`, `second`, `second` warped by a known displacement, and that displacement.

    The content changes between sections, so the true flow is not known; but the flow to the
    warped section must differ from the flow to the plain one by just the known displacement.
    """
    size = first.shape[0]
    y, x = np.mgrid[:size, :size].astype(float)
    u = displacement(y, x, size=1024, seed=seed)
    warped = np.clip(np.rint(sample(second, y + u[0], x + u[1])), 0, 255)
    return (
        first.astype(np.float32),
        second.astype(np.float32),
        warped.astype(np.float32),
        lambda y, x: displacement(y, x, size=1024, seed=seed),
    )


def neighbour_error(plain: np.ndarray, warped: np.ndarray, positions: np.ndarray, truth):
    """`plain(p) = b + v(p + b)` with b that to the warped section: the length of the rest."""
    at = positions + warped
    return np.linalg.norm(warped + truth(*at) - plain, axis=0)
