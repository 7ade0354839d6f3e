"""Interpolation of one window of an image at given positions.

Linear interpolation is `cv2.remap`, which since OpenCV 5 takes float32 positions as they are
(older versions rounded them to 1/32 px). In 3-D the planes are laid out below each other, and
two such maps are mixed along z. Cubic is the interpolating B-spline: the kernel of
`cv2.INTER_CUBIC` moves what it draws by up to 0.05 px. Lanczos is `cv2.INTER_LANCZOS4`: eight
taps per axis, positions rounded to 1/32 px, and it overshoots at edges.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage

from warpbeam.kernels.warp.spline import spline_at

Pixels = Num[np.ndarray, "..."]
Float32 = Float[np.ndarray, "..."]

_CV2_DTYPES = ("uint8", "uint16", "float32")
_FITS_FLOAT32 = ("uint8", "int8", "uint16", "int16", "float16", "float32")


def sample(pixels: Pixels, position: Float32, interpolation: str, dtype: np.dtype) -> Pixels:
    """The window at the positions; beyond its border the border is repeated.

    Args:
        pixels: `[(z,) y, x]`.
        position: `[component, ...]`, float32, finite, in voxels of the window.
        interpolation: "linear", "cubic" or, in 2-D, "lanczos".
        dtype: that the values are wanted in.

    Returns:
        Values in `dtype` where OpenCV computes in it, else in float32, or float64 where the
        pixels do not fit into float32.
    """
    plane = pixels.ndim == 2
    if interpolation == "lanczos" or (plane and interpolation == "linear"):
        if pixels.dtype == dtype and pixels.dtype.name in _CV2_DTYPES:
            return _remap(pixels, position, interpolation)
        if interpolation == "lanczos" or pixels.dtype.name in _FITS_FLOAT32:
            return _remap(pixels.astype(np.float32), position, interpolation)
    if pixels.dtype.name not in _FITS_FLOAT32:
        return _by_scipy(pixels.astype(np.float64), position, interpolation)
    values = pixels.astype(np.float32)
    if interpolation == "linear":
        return _stacked_linear(values, position)
    return spline_at(values, position) if plane else _by_scipy(values, position, interpolation)


def _remap(pixels: Pixels, position: Float32, interpolation: str) -> Pixels:
    flags = {"linear": cv2.INTER_LINEAR, "lanczos": cv2.INTER_LANCZOS4}[interpolation]
    y, x = position
    return cv2.remap(pixels, x, y, flags, borderMode=cv2.BORDER_REPLICATE)


def _stacked_linear(values: Float32, position: Float32) -> Float32:
    """Trilinear: two planar interpolations and a mix."""
    depth, height, width = values.shape
    z, y, x = (np.clip(p, 0, n - 1) for p, n in zip(position, values.shape, strict=True))
    below = np.minimum(np.floor(z), max(depth - 2, 0))
    flat = (-1, z.shape[-1])
    sheet = values.reshape(-1, width)
    rows = (below * height + y).reshape(flat)
    low = _remap(sheet, np.stack([rows, x.reshape(flat)]), "linear")
    if depth == 1:
        return low.reshape(z.shape)
    rows += height
    high = _remap(sheet, np.stack([rows, x.reshape(flat)]), "linear")
    high -= low
    high *= (z - below).reshape(flat)
    high += low
    return high.reshape(z.shape)


def _by_scipy(values: Float32, position: Float32, interpolation: str) -> Float32:
    order = {"linear": 1, "cubic": 3}[interpolation]
    return ndimage.map_coordinates(values, position, order=order, mode="nearest")
