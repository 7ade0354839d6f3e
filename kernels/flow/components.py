"""Connected pieces of a flow."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from scipy import ndimage


def large_components(
    valid: Bool[np.ndarray, "*nodes"], min_nodes: int
) -> Bool[np.ndarray, "*nodes"]:
    """The valid nodes whose connected piece has at least `min_nodes`; neighbours share a face."""
    labels, count = ndimage.label(valid)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= max(min_nodes, 1))[labels])
