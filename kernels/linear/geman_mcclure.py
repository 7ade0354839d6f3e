"""The weights of Geman and McClure: what lies far from the rest counts for nothing.

Geman and McClure 1985, Bayesian image analysis; a graduated cutoff makes the start matter
little (Black and Rangarajan 1996, doi 10.1007/BF00131148).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_CUTOFF = 3.0  # a residual of this many scales has a quarter of the weight


def geman_mcclure(
    squared: Float[np.ndarray, "*shape"], scale: float
) -> Float[np.ndarray, "*shape"]:
    """`(c^2 / (c^2 + r^2))^2` of squared residuals `r^2`, for a cutoff `c` of 3 scales."""
    cutoff = (_CUTOFF * scale) ** 2
    return (cutoff / (cutoff + squared)) ** 2
