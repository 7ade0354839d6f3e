"""Where objects lie and what shape they have, as scikit-image defines it.

Definitions: `skimage.measure.regionprops` (0.26): second moments of the pixels' centres
for axes, eccentricity and orientation; perimeter after Benkrid & Crookes (2000) with 4-neighbours;
solidity from the hull of the pixels' edge midpoints.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from warpbeam.kernels.segment.bounds import bounding_boxes
from warpbeam.kernels.segment.hull import hull_area
from warpbeam.kernels.segment.perimeter import perimeter
from warpbeam.kernels.segment.regions import Regions

Column = Float[np.ndarray, "count"] | Int[np.ndarray, "count"]


def shape_properties(regions: Regions) -> dict[str, Column]:
    """Properties of labels 1 to `count`; NaN for a label without a pixel.

    Returns:
        `area`, `bbox_y0`, `bbox_x0`, `bbox_y1`, `bbox_x1` (half-open), `centroid_y`,
        `centroid_x`, `extent`, `axis_major_length`, `axis_minor_length`, `eccentricity`,
        `orientation` (radians, between the y axis and the major axis), `perimeter`,
        `solidity`; lengths in pixels.
    """
    area = regions.area
    box = bounding_boxes(regions)
    pixels = np.where(area > 0, area, np.nan)
    moments = central_moments(regions, pixels)
    height, width = (box[f"bbox_{a}1"] - box[f"bbox_{a}0"] for a in "yx")
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "area": area,
            **box,
            "centroid_y": moments["y"],
            "centroid_x": moments["x"],
            "extent": pixels / (height * width),
            **ellipse(moments["yy"], moments["yx"], moments["xx"]),
            "perimeter": perimeter(regions),
            "solidity": pixels / hull_area(regions),
        }


def central_moments(
    regions: Regions, pixels: Float[np.ndarray, "count"]
) -> dict[str, Float[np.ndarray, "count"]]:
    """Centroid (`y`, `x`) and second central moments per pixel (`yy`, `yx`, `xx`).

    A run of n pixels has the sums n y, n x and n y^2, n x y, n (x^2 + (n^2 - 1) / 12), with
    x its middle. They are taken about the centroid, where nothing cancels.
    """
    length, middle = regions.length, (regions.left + regions.right) / 2
    y = regions.sum(length * regions.row) / pixels
    x = regions.sum(length * middle) / pixels
    dy, dx = regions.row - y[regions.label - 1], middle - x[regions.label - 1]
    along = dx * dx + (length * length - 1) / 12
    second = {"yy": dy * dy, "yx": dy * dx, "xx": along}
    return {
        "y": y,
        "x": x,
        **{name: regions.sum(length * value) / pixels for name, value in second.items()},
    }


def ellipse(
    yy: Float[np.ndarray, "count"], yx: Float[np.ndarray, "count"], xx: Float[np.ndarray, "count"]
) -> dict[str, Float[np.ndarray, "count"]]:
    """The ellipse with an object's second moments; NaN where they are."""
    known = np.isfinite(yy)
    inertia = np.stack([xx, -yx, -yx, yy], axis=-1)[known].reshape(-1, 2, 2)
    small, large = np.full(yy.shape, np.nan), np.full(yy.shape, np.nan)
    small[known], large[known] = np.maximum(np.linalg.eigvalsh(inertia), 0).T
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(large == 0, 0.0, np.sqrt(1 - small / large))
    # Where both axes are equally long the angle is +-45 degrees, by convention.
    level = np.where(yx > 0, np.pi / 4, -np.pi / 4)
    return {
        "axis_major_length": 4 * np.sqrt(large),
        "axis_minor_length": 4 * np.sqrt(small),
        "eccentricity": eccentricity,
        "orientation": np.where(xx == yy, level, 0.5 * np.arctan2(2 * yx, yy - xx)),
    }
