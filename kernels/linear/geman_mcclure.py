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


def axis_scale(squared: Float[np.ndarray, " n"], axes: int, least: float) -> float:
    """Standard deviation on one axis, from the median; not below `least`.

    The median of chi-squared with f degrees of freedom is about `f (1 - 2 / (9 f))^3`
    (Wilson and Hilferty 1931, doi 10.1073/pnas.17.12.684).

    Args:
        squared: mean over the axes of each squared residual.
        axes: how many.
        least: what it is at least, and where there are no residuals.
    """
    if not squared.size:
        return least
    median = float(np.median(squared)) / (1 - 2 / (9 * axes)) ** 3
    return float(max(least, np.sqrt(median)))
