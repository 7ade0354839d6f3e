"""Nodes whose windows stay less alike than those elsewhere, as the field cannot follow there.

Where two volumes differ by much over few windows, a stiff field gives way to only a part of it, and
what it leaves is more than the next step reaches. Matches that weigh more let it follow further.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

Grid = Float[np.ndarray, "*nodes"]

_ALIKE = 0.9  # of the median correlation of all nodes
_WEIGHT = 10.0  # of the matches of poor nodes: bends of 10^(1/4) times shorter are followed


def poor_nodes(ncc: Grid, reach: tuple[int, ...]) -> Bool[np.ndarray, "*nodes"]:
    """The nodes around those that correlate less than most.

    Args:
        ncc: of the windows of the whole lattice; NaN = not known, which is not poor.
        reach: nodes on each side of a window.
    """
    known = np.isfinite(ncc)
    if not known.any():
        return known
    low = known & (np.nan_to_num(ncc) < _ALIKE * np.median(ncc[known]))
    size = tuple(2 * r + 1 for r in reach)
    return np.asarray(ndimage.maximum_filter(low, size=size))


def weights(poor: Bool[np.ndarray, "*nodes"]) -> Grid:
    """Of the matches."""
    return np.where(poor, _WEIGHT, 1.0)
