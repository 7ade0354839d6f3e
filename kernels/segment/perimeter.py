"""Perimeters of all objects at once: border pixels, weighted by how their neighbours lie.

After Benkrid & Crookes, "Design and FPGA implementation of a perimeter estimator" (2000),
with the table of `skimage.measure.perimeter` for 4-neighbours. Labels are compared, not
foreground, so that objects which touch have borders against one another.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.segment.regions import Regions

# Weight of a border pixel with so many border pixels of its object beside it (rows: sharing an
# edge, columns: sharing a corner). Straight steps count 1, oblique ones sqrt(2), a step of each
# kind their mean; other patterns are the inside of a corner, and count nothing.
_WEIGHT = np.zeros((5, 5))
_WEIGHT[2:4, 0:3] = 1.0
_WEIGHT[0, 2] = _WEIGHT[1, 3] = np.sqrt(2)
_WEIGHT[1, 1:3] = (1 + np.sqrt(2)) / 2


def perimeter(regions: Regions) -> Float[np.ndarray, "count"]:
    """Length of the border of each label 1 to `count`, in pixels."""
    image = regions.padded
    flat, width, at = image.reshape(-1), image.shape[1], regions.padded_index
    own = flat[at]
    inside = flat[at - width] == own
    inside &= flat[at + width] == own
    inside[regions.first] = False
    inside[regions.first + regions.length - 1] = False
    border, label = at[~inside], own[~inside]
    outline = np.zeros(flat.size, np.bool_)
    outline[border] = True

    def beside(*steps: int) -> np.ndarray:
        found = np.zeros(border.size, np.int8)
        for step in steps:
            found += outline[border + step] & (flat[border + step] == label)
        return found

    edges = beside(-width, -1, 1, width)
    corners = beside(-width - 1, 1 - width, width - 1, width + 1)
    weight = _WEIGHT[edges, corners]
    return np.bincount(label, weight, minlength=regions.count + 1)[1:].astype(np.float64)
