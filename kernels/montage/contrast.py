"""Brings two strips of different tiles to comparable contrast before they are correlated.

A band-pass takes out vignette, offset and pixel noise; a soft limit then keeps a few bright
spots from outweighing everything else, because two unrelated spots correlate perfectly.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

Patch = Float32[np.ndarray, "*patch"]
Mask = Bool[np.ndarray, "*patch"]

# The median absolute value of a standard normal variable.
NORMAL_MAD = 0.6745


def separable(image: Patch, kernels: Sequence[Float32[np.ndarray, "_"]]) -> Patch:
    """Correlates each axis with its odd kernel; zeros lie beyond the edge."""
    if image.ndim == 2:
        rows, columns = kernels
        return cv2.sepFilter2D(image, -1, columns, rows, borderType=cv2.BORDER_CONSTANT)
    for axis, kernel in enumerate(kernels):
        image = ndimage.correlate1d(image, kernel, axis=axis, mode="constant")
    return image


def gaussian(sigma: float) -> Float32[np.ndarray, "_"]:
    """A Gaussian of sum 1 sampled around its centre, cut at 3.5 sigma."""
    radius = max(1, int(np.ceil(3.5 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def local_mean(image: Patch, mask: Mask, sigma: float) -> Patch:
    """The Gaussian mean of the valid voxels around each voxel; 0 where there are none."""
    kernels = [gaussian(sigma)] * image.ndim
    if mask.all():
        return _mean_of_all(image, kernels)
    weight = separable(mask.astype(np.float32), kernels)
    smooth = separable(np.where(mask, image, np.float32(0)), kernels)
    return np.divide(smooth, weight, out=np.zeros_like(smooth), where=weight > 1e-6)


def _mean_of_all(image: Patch, kernels: Sequence[Float32[np.ndarray, "_"]]) -> Patch:
    """The same where all voxels are valid: what lies within the edges is known axis by axis."""
    smooth = separable(image, kernels)
    for axis, (n, kernel) in enumerate(zip(image.shape, kernels, strict=True)):
        inside = np.correlate(np.pad(np.ones(n, np.float32), len(kernel) // 2), kernel, "valid")
        smooth /= inside.reshape([-1 if k == axis else 1 for k in range(image.ndim)])
    return smooth


def band_pass(image: Patch, mask: Mask, fine: float, coarse: float) -> Patch:
    """What lies between two Gaussian scales (px), from the valid voxels alone; 0 elsewhere."""
    detail = local_mean(image, mask, fine) - local_mean(image, mask, coarse)
    return np.where(mask, detail, np.float32(0))


def comparable(image: Patch, band: tuple[float, float], most: float) -> tuple[Patch, Mask]:
    """An image between two Gaussian scales (px), bent softly at `most` deviations, and where it
    is known (NaN = no data)."""
    mask = np.isfinite(image)
    filled = np.where(mask, image, np.float32(0))
    return limit(band_pass(filled, mask, *band), mask, most), mask


def limit(image: Patch, mask: Mask, at: float) -> Patch:
    """Bends values beyond `at` robust standard deviations softly towards that limit.

    The deviation comes from the median absolute value, so that it is the background's
    where the signal is sparse.
    """
    magnitude = np.abs(image[mask])
    if not magnitude.size:
        return image
    spread = float(np.median(magnitude)) / NORMAL_MAD
    spread = max(spread, 1e-3 * float(magnitude.max()))
    if spread == 0:
        return image
    scaled = image / np.float32(at * spread)
    return scaled / np.sqrt(1 + scaled**2)
