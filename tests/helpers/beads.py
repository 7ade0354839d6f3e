"""Gaussian beads at known places: volumes of them in any position are exact."""

import numpy as np


def scattered(shape, count=120, seed=0):
    """Places, and heights of both signs."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (count, 3)) * shape, rng.choice([-1, 1], count) * rng.uniform(
        0.5, 1, count
    )


def draw(places, heights, shape, *, width=1.3, noise=0.0, seed=1):
    """`(z, y, x)` float32."""
    axes = [np.exp(-((np.arange(n)[:, None] - p) ** 2) / (2 * width**2)) for n, p in
            zip(shape, places.T, strict=True)]  # fmt: skip
    image = np.einsum("zn,yn,xn,n->zyx", *axes, heights)
    return (image + noise * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)
