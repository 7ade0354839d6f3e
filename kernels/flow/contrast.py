"""Contrast evened out before images are compared: where staining or illumination vary.

Patches are normalised one by one anyway; this helps where contrast changes within a patch, or a
few bright or dark things outweigh everything else.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.montage.contrast import local_mean

Image = Float32[np.ndarray, "y x"]
Contrast = Literal["none", "local", "clahe"]

# Less than this share of the whole image's deviation is noise, and is not blown up.
_LEAST_DEVIATION = 0.1
_CLIP = 3.0
_LEVELS = 65535


def evened(image: Image, how: Contrast, radius_px: int) -> Image:
    """The image with its contrast evened out.

    Args:
        image: NaN = no data, and stays so.
        how: "none"; "local": less the local mean, over the local deviation (Gaussian
            neighbourhoods); "clahe": contrast-limited adaptive histogram equalisation (Zuiderveld
            1994), in tiles anchored at the image's corner.
        radius_px: size of the neighbourhoods, or of the tiles.
    """
    if how == "none" or not np.isfinite(image).any():
        return image
    return _local(image, radius_px) if how == "local" else _clahe(image, radius_px)


def _local(image: Image, radius_px: int) -> Image:
    mask = np.isfinite(image)
    filled = np.where(mask, image, np.float32(0))
    apart = filled - local_mean(filled, mask, radius_px / 2)
    deviation = np.sqrt(local_mean(np.square(apart), mask, radius_px / 2))
    floor = np.float32(_LEAST_DEVIATION * float(image[mask].std()) + 1e-12)
    return np.where(mask, apart / np.maximum(deviation, floor), np.float32(np.nan))


def _clahe(image: Image, radius_px: int) -> Image:
    mask = np.isfinite(image)
    low, high = float(image[mask].min()), float(image[mask].max())
    scaled = (np.where(mask, image, low) - low) * (_LEVELS / max(high - low, 1e-12))
    grid = tuple(max(1, round(n / radius_px)) for n in image.shape[::-1])
    equal = cv2.createCLAHE(_CLIP, grid).apply(np.rint(scaled).astype(np.uint16))
    return np.where(mask, equal.astype(np.float32), np.float32(np.nan))
