"""Grey values of an image, and their range, from small windows spread over it.

Whoever needs the range reads the same windows, so that all workers find the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import Range, grey_range

Image = Float32[np.ndarray, "y x"]
Read = Callable[[Box], Image]

_WINDOWS, _WINDOW_PX = 8, 64
_THIN = 4


def with_nan(pixels: np.ndarray[Any, Any], known: Bool[np.ndarray, "y x"] | None) -> Image:
    """Pixels as float32, NaN where they are not known; `known` None means that all are."""
    image = pixels.astype(np.float32)
    if known is not None:
        image[~known] = np.nan
    return image


def within_type(grey: Range, dtype: np.dtype[Any]) -> Range:
    """A range of grey values as far as the type of the pixels reaches."""
    if dtype.kind not in "iu":
        return grey
    limits = np.iinfo(dtype)
    return max(grey[0], float(limits.min)), min(grey[1], float(limits.max))


def sampled_range(read: Read, shape: Sequence[int]) -> Range:
    """See `grey_range`.

    Args:
        read: gives the pixels of a box of the image, NaN where there is no data.
        shape: of the image.
    """
    return grey_range(grey_sample(read, shape))


def grey_sample(read: Read, shape: Sequence[int]) -> Float32[np.ndarray, "n"]:
    """Grey values of an image, as far as they are known. Where all windows show the same, those of
    a thinned copy of the whole."""
    begins = [
        np.unique(np.linspace(0, max(n - _WINDOW_PX, 0), _WINDOWS).astype(int)).tolist()
        for n in shape
    ]
    extent = Box.of_shape(shape)
    windows = (Box.of_shape((_WINDOW_PX,) * 2, corner) & extent for corner in product(*begins))
    seen = np.concatenate([read(window).ravel() for window in windows])
    known = seen[np.isfinite(seen)]
    if not known.size or known.min() == known.max():
        bands = (Box((y, 0), (y + _WINDOW_PX, shape[1])) for y in range(0, shape[0], _WINDOW_PX))
        seen = np.concatenate([read(band & extent)[::_THIN, ::_THIN].ravel() for band in bands])
        known = seen[np.isfinite(seen)]
    return known
