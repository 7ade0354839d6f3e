"""The range of a section's grey values, from small windows spread over it.

Whoever needs it reads the same windows, so that all workers find the same range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import Range, grey_range

_WINDOWS, _WINDOW_PX = 8, 64
_THIN = 4


def sampled_range(read: Callable[[Box], Float32[np.ndarray, "y x"]], shape: Sequence[int]) -> Range:
    """See `grey_range`. Where all windows show the same, a thinned copy of the whole section tells.

    Args:
        read: gives the pixels of a box of the section, NaN where there is no data.
        shape: of the section.
    """
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
    return grey_range(seen)
