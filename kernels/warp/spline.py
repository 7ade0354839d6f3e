"""The interpolating cubic B-spline of a plane, at any positions.

The coefficients are a recursive filter of the pixels (Unser 1999, doi 10.1109/79.799930), here
cut off where it has decayed below float32. A sum of 4 x 4 of them is four linear interpolations
between well chosen positions (Sigg and Hadwiger 2005, GPU Gems 2, chapter 20), which `cv2.remap`
does exactly and fast.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

Plane = Float[np.ndarray, "..."]
Positions = Float[np.ndarray, "..."]

_POLE = np.sqrt(3) - 2
_TAPS = 12  # |pole|^13 = 4e-8
_BORDER = 2  # coefficients of the repeated border that the outermost half voxel needs


def spline_at(pixels: Plane, position: Positions) -> Positions:
    """The spline at positions `[2, ...]`, float32; the border is repeated beyond the plane.

    One NaN pixel makes everything within its twelve neighbours NaN.
    """
    coefficients = _coefficients(pixels)
    limits = np.reshape(pixels.shape, (2, *[1] * (position.ndim - 1)))
    inside = np.clip(position, -1, limits, dtype=np.float32)
    (y0, y1, share_y), (x0, x1, share_x) = (_pairs(part + _BORDER) for part in inside)
    low = _mix(coefficients, y0, x0, x1, share_x)
    high = _mix(coefficients, y1, x0, x1, share_x)
    high -= low
    high *= share_y
    high += low
    return high


def _coefficients(pixels: Plane) -> Plane:
    """Convolution with the inverse of [1, 4, 1] / 6, which is sqrt(3) * pole^|k|."""
    kernel = np.sqrt(3) * _POLE ** np.abs(np.arange(-_TAPS, _TAPS + 1))
    padded = np.pad(pixels, _BORDER, mode="edge")
    return cv2.sepFilter2D(padded, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def _pairs(position: Positions) -> tuple[Positions, Positions, Positions]:
    """Two positions whose linear interpolations make the spline, and the share of the second."""
    below = np.floor(position)
    t = position - below
    square = t * t
    cube = square * t
    # the four cubic B-spline weights are (1-t)^3/6, …, t^3/6; the outer ones in their pairs:
    w3 = cube / 6
    w1 = 2 / 3 - square + cube / 2
    second = 1 / 6 + (t + square - cube) / 2 + w3
    first = below - 1 + w1 / (1 - second)
    return first, below + 1 + w3 / second, second


def _mix(
    coefficients: Plane, y: Positions, x0: Positions, x1: Positions, share: Positions
) -> Positions:
    low = cv2.remap(coefficients, x0, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    high = cv2.remap(coefficients, x1, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    high -= low
    high *= share
    high += low
    return high
