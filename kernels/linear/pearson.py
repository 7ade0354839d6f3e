"""Pearson correlation of two images where both are known."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def pearson(first: Float[np.ndarray, "*shape"], second: Float[np.ndarray, "*shape"]) -> float:
    """Of the grey values of all places that both know (NaN = not known), in float64; NaN where
    there is none, or one of the two does not vary."""
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        return math.nan
    a, b = (values[known].astype(np.float64) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / size if size > 0 else math.nan
