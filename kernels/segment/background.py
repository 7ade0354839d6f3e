"""What is done to grey values before the threshold: background and smoothing.

Images keep their type: values are rounded and cut to its range, so that histograms stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Num

from warpbeam.kernels.warp.cast import cast

How = Literal["none", "subtract", "divide"]


def median_image(stack: Sequence[Num[np.ndarray, "y x"]]) -> Float[np.ndarray, "y x"]:
    """The median of several images of one shape, pixel by pixel, float32."""
    return np.median(np.stack(stack), axis=0).astype(np.float32)


def correct(
    image: Num[np.ndarray, "y x"], background: Float[np.ndarray, "y x"] | None, how: How
) -> Num[np.ndarray, "y x"]:
    """The image without its background.

    Args:
        image: any type.
        background: of the same shape; None leaves the image as it is.
        how: `subtract` cuts at 0 from below; `divide` by the background relative to its mean,
            so that grey values keep their size; a background of 0 counts as its least
            positive value.
    """
    if background is None or how == "none":
        return image
    if how == "subtract":
        return cast(image - background, image.dtype)
    positive = background[background > 0]
    if not positive.size:
        return image
    shape = np.maximum(background, positive.min()) / positive.mean(dtype=np.float64)
    return cast(image / shape.astype(np.float32), image.dtype)


def smooth(image: Num[np.ndarray, "y x"], sigma_px: float) -> Num[np.ndarray, "y x"]:
    """Gaussian smoothing; the image itself for a sigma of 0."""
    if sigma_px <= 0:
        return image
    wide = image.astype(np.float32, copy=False)
    smoothed = cv2.GaussianBlur(wide, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return cast(smoothed, image.dtype)
