"""Which objects count: by area, border and distance; and holes in them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from warpbeam.kernels.segment.regions import Regions, label_mask


def within_area(regions: Regions, smallest: int, largest: int) -> Bool[np.ndarray, "count"]:
    """Objects with more than `smallest` and fewer than `largest` pixels: both bounds are strict."""
    return (regions.area > smallest) & (regions.area < largest)


def off_border(regions: Regions) -> Bool[np.ndarray, "count"]:
    """Objects without a pixel on the image's border, where they may be cut."""
    height, width = regions.shape
    at_edge = (
        (regions.row == 0)
        | (regions.row == height - 1)
        | (regions.left == 0)
        | (regions.right == width - 1)
    )
    inside = np.ones(regions.count + 1, bool)
    inside[regions.label[at_edge]] = False
    return inside[1:]


def apart(centroids: Float[np.ndarray, "count 2"], radius: float) -> Bool[np.ndarray, "count"]:
    """Objects without another one's centroid within `radius`; of a close pair both go."""
    alone = np.ones(len(centroids), bool)
    if len(centroids) > 1:
        alone[cKDTree(centroids).query_pairs(radius, output_type="ndarray").ravel()] = False
    return alone


def fill_holes(mask: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """The mask with every piece of background filled that does not reach the image's border."""
    background = label_mask(~mask, connectivity=4)
    holes = background.keep(off_border(background))
    return mask | (holes.image() > 0) if holes.count else mask
