"""An image cut into small pieces along its ridges, so small that hardly one lies on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Real, UInt32
from scipy import ndimage
from skimage.segmentation import watershed


def catchments(
    height: Real[np.ndarray, "*shape"], sigma: Sequence[float]
) -> UInt32[np.ndarray, "*shape"]:
    """Where water flows to from each place: every minimum of the smoothed image has a piece.

    Args:
        height: such as boundary evidence; finite.
        sigma: of the Gaussian before, pixels along each axis: more leaves fewer pieces.

    Returns:
        Numbers from 1; every pixel has one.
    """
    smooth = ndimage.gaussian_filter(height.astype(np.float32), sigma, mode="nearest")
    minima, _ = ndimage.label(smooth == ndimage.minimum_filter(smooth, 3))
    found: np.ndarray = watershed(smooth, minima)
    return found.astype(np.uint32)
