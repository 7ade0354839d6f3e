"""Bounding boxes of objects."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from warpbeam.kernels.segment.regions import Regions


def bounding_boxes(regions: Regions) -> dict[str, Int[np.ndarray, "count"]]:
    """First row and column, and the ones behind the last; all 0 for a label without a pixel."""
    n, (height, width) = regions.count + 1, regions.shape
    low_y, low_x = np.full(n, height), np.full(n, width)
    high_y, high_x = np.zeros(n, np.int64), np.zeros(n, np.int64)
    np.minimum.at(low_y, regions.label, regions.row)
    np.minimum.at(low_x, regions.label, regions.left)
    np.maximum.at(high_y, regions.label, regions.row + 1)
    np.maximum.at(high_x, regions.label, regions.right + 1)
    low_y[high_y == 0] = low_x[high_x == 0] = 0
    names = ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")
    return {k: v[1:] for k, v in zip(names, (low_y, low_x, high_y, high_x), strict=True)}
