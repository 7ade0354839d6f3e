"""Grey values of a channel under the objects."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from warpbeam.kernels.segment.regions import Regions


def intensity_properties(
    regions: Regions, image: Num[np.ndarray, "y x"]
) -> dict[str, Float[np.ndarray, "count"]]:
    """Grey values of labels 1 to `count`; NaN for a label without a pixel.

    Args:
        regions: the objects.
        image: the channel; sums of whole numbers are exact.

    Returns:
        `intensity_max`, `intensity_mean`, `intensity_min`, `intensity_std` (of all pixels,
        not of a sample), `centroid_weighted_y`, `centroid_weighted_x` (NaN where all is 0).
    """
    values = image.reshape(-1).take(regions.index)
    wide = values.astype(np.int64 if image.dtype.kind in "iu" else np.float64)
    pixels = np.where(regions.area > 0, regions.area, np.nan)

    def by_run(of_pixels: Num[np.ndarray, "pixels"]) -> Num[np.ndarray, "runs"]:
        return np.add.reduceat(of_pixels, regions.first) if of_pixels.size else of_pixels

    with np.errstate(invalid="ignore", divide="ignore"):
        of_run = by_run(wide)
        weight = regions.sum(of_run)
        mean = weight / pixels
        deviation = wide - regions.pixels(mean[regions.label - 1])
        return {
            "intensity_max": _extreme(np.maximum, -np.inf, regions, values),
            "intensity_mean": mean,
            "intensity_min": _extreme(np.minimum, np.inf, regions, values),
            "intensity_std": np.sqrt(regions.sum(by_run(deviation * deviation)) / pixels),
            "centroid_weighted_y": regions.sum(of_run * regions.row) / weight,
            "centroid_weighted_x": regions.sum(by_run(wide * regions.column)) / weight,
        }


def _extreme(
    which: np.ufunc, start: float, regions: Regions, values: Num[np.ndarray, "pixels"]
) -> Float[np.ndarray, "count"]:
    found = np.full(regions.count + 1, start)
    if values.size:
        which.at(found, regions.label, which.reduceat(values, regions.first).astype(np.float64))
    return np.where(np.isfinite(found), found, np.nan)[1:]
