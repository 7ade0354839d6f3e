"""Interpolated values in the dtype that is stored."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

Pixels = Shaped[np.ndarray, "..."]


def cast(values: Pixels, dtype: np.dtype) -> Pixels:
    """The values in a dtype; for integers rounded half to even, clipped, and 0 for NaN."""
    if values.dtype == dtype or values.dtype.kind not in "fc" or dtype.kind not in "iu":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # the largest 32- and 64-bit integers are no floats: clip to the greatest float below
    top = np.asarray(limits.max, values.dtype)
    if int(top) > limits.max:
        top = np.nextafter(top, np.asarray(0, values.dtype))
    whole = np.clip(np.rint(values), limits.min, top)
    return np.nan_to_num(whole, copy=False).astype(dtype)
