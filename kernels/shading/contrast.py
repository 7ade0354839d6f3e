"""Contrast evened out, where staining or illumination vary: before images are compared or drawn.

Any part of an image comes out as it would in the whole: neighbourhoods lie where the image has
them, not where a part begins, and the range of grey values is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.montage.contrast import gaussian, local_mean

Image = Float32[np.ndarray, "y x"]
Range = tuple[float, float]
Contrast = Literal["none", "local", "clahe"]

# Less than this share of the range is noise, and is not blown up.
_LEAST_DEVIATION = 1 / 60
# Standard deviations of the neighbourhood that the range holds.
_DEVIATIONS = 6
# Times the mean count of a grey value; what is above it is spread over all values.
_CLIP = 3.0
_LEVELS = 255


def support(box: Box, how: Contrast, size_px: int) -> Box:
    """What of an image must be at hand for a box of it to be evened out."""
    if how == "none":
        return box
    if how == "local":
        reach = 2 * (len(gaussian(_sigma(size_px))) // 2)
        return box.pad((reach, reach))
    return Box(
        tuple((a // size_px - 1) * size_px for a in box.start),
        tuple((math.ceil(b / size_px) + 1) * size_px for b in box.stop),
    )


def evened(
    image: Image, how: Contrast, size_px: int, grey: Range, start: Sequence[int] = (0, 0)
) -> Image:
    """The image with its contrast evened out, in the same range of grey values.

    Args:
        image: NaN = no data, and stays so. A part of an image is right where its `support` is in
            the part, or where the whole image ends.
        how: "none"; "local": the distance from the local mean in local standard deviations, of
            which the range holds 6; "clahe": contrast-limited adaptive histogram equalisation
            (Zuiderveld 1994, Graphics Gems IV) to 256 values.
        size_px: of the tiles of "clahe"; four standard deviations of the Gaussian neighbourhoods
            of "local".
        grey: the values between which nearly all pixels lie; see `grey_range`.
        start: where the part lies in its image, for the place of the tiles.
    """
    if how == "none" or not np.isfinite(image).any():
        return image
    mask = np.isfinite(image)
    filled = np.where(mask, image, np.float32(grey[0]))
    if how == "local":
        out = _local(filled, mask, _sigma(size_px), grey)
    else:
        out = _clahe(filled, size_px, grey, start)
    return np.where(mask, out, np.float32(np.nan))


def grey_range(sample: Float32[np.ndarray, "..."]) -> Range:
    """The values between which nearly all pixels lie of an image of which this is a sample.

    A tenth wider than what holds all but a thousandth on either side. NaN does not count.
    """
    known = sample[np.isfinite(sample)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.quantile(known.astype(np.float64), (0.001, 0.999))
    margin = max((high - low) / 10, 1e-6 * max(abs(low), 1e-6))
    return float(low - margin), float(high + margin)


def _sigma(size_px: int) -> float:
    return size_px / 4


def _local(image: Image, mask: np.ndarray, sigma: float, grey: Range) -> Image:
    low, high = grey
    apart = np.where(mask, image - local_mean(image, mask, sigma), np.float32(0))
    deviation = np.sqrt(local_mean(np.square(apart), mask, sigma))
    apart /= np.maximum(deviation, np.float32(_LEAST_DEVIATION * (high - low)))
    return np.clip((low + high) / 2 + apart * ((high - low) / _DEVIATIONS), low, high)


def _clahe(image: Image, size_px: int, grey: Range, start: Sequence[int]) -> Image:
    low, high = grey
    values = np.rint((np.clip(image, low, high) - low) * (_LEVELS / (high - low))).astype(np.uint8)
    # OpenCV counts tiles from the corner, and wants whole ones.
    before = [s % size_px for s in start]
    after = [-(s + n) % size_px for s, n in zip(start, image.shape, strict=True)]
    whole = np.pad(values, tuple(zip(before, after, strict=True)), "symmetric")
    rows, columns = (n // size_px for n in whole.shape)
    equal = cv2.createCLAHE(_CLIP, (columns, rows)).apply(whole)
    inside = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))
    return (low + equal[inside] * ((high - low) / _LEVELS)).astype(np.float32)
