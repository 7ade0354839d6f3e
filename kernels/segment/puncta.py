"""Small bright spots inside the objects: difference of two Gaussians, one label pass for all."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Num

from warpbeam.kernels.segment.regions import Regions, label_pieces
from warpbeam.kernels.segment.shape import central_moments


@dataclass(frozen=True)
class PunctaSettings:
    """What counts as a spot.

    Attributes:
        fine_px, coarse_px: sigmas of the Gaussians; spots in between stand out.
        contrast: least absolute difference of the two, grey values.
        smallest, largest: pixels, strict bounds.
    """

    fine_px: float
    coarse_px: float
    contrast: float
    smallest: int
    largest: int


def difference_of_gaussians(
    image: Num[np.ndarray, "y x"], fine_px: float, coarse_px: float
) -> Float[np.ndarray, "y x"]:
    """|G(fine) - G(coarse)| of an image, float32."""
    wide = image.astype(np.float32, copy=False)
    fine, coarse = (
        cv2.GaussianBlur(wide, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        for sigma in (fine_px, coarse_px)
    )
    return np.abs(fine - coarse)


def find_puncta(
    regions: Regions, image: Num[np.ndarray, "y x"], settings: PunctaSettings
) -> tuple[Regions, dict[str, np.ndarray]]:
    """The spots inside the objects; a spot that lies in two touching objects is two.

    Time grows with the pixels, not with objects times pixels: each spot's owner is looked up.

    Returns:
        The spots, numbered in raster order, and columns with one entry for each: `cell` (the
        label of its object), `area`, `centroid_y`, `centroid_x`.
    """
    bright = difference_of_gaussians(image, settings.fine_px, settings.coarse_px)
    spots, cell = label_pieces(regions.image() * (bright > settings.contrast))
    wanted = (spots.area > settings.smallest) & (spots.area < settings.largest)
    spots, cell = spots.keep(wanted), cell[wanted]
    moments = central_moments(spots, spots.area.astype(np.float64))
    return spots, {
        "cell": cell.astype(np.int64),
        "area": spots.area,
        "centroid_y": moments["y"],
        "centroid_x": moments["x"],
    }
