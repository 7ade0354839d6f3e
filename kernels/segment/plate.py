"""An image of a plate -> its objects: threshold, labels, split (or a network), filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, Num

from warpbeam.kernels.segment import filters
from warpbeam.kernels.segment.background import smooth
from warpbeam.kernels.segment.regions import Regions, label_mask, numbered
from warpbeam.kernels.segment.shape import central_moments
from warpbeam.kernels.segment.split import split_touching
from warpbeam.kernels.segment.threshold import ThresholdSettings, foreground

# An image to labels in any order, 0 for background.
Network = Callable[[Num[np.ndarray, "y x"]], Integer[np.ndarray, "y x"]]


@dataclass(frozen=True)
class ObjectSettings:
    """What an object is.

    Attributes:
        threshold: what is bright enough.
        gaussian_px: sigma of the smoothing before it; 0 for none.
        fill_holes: whether dark places inside an object belong to it.
        neck: touching objects are cut at necks narrower than this share; 0 for never.
        split_smoothing_px: see `split_touching`.
        smallest, largest: pixels, strict bounds.
        clear_border: leave out what touches the image's border.
        apart_px: leave out objects whose centroids are this close to one another; 0 for none.
    """

    threshold: ThresholdSettings
    gaussian_px: float
    fill_holes: bool
    neck: float
    split_smoothing_px: float
    smallest: int
    largest: int
    clear_border: bool
    apart_px: float


def find_objects(
    image: Num[np.ndarray, "y x"], settings: ObjectSettings, network: Network | None = None
) -> Regions:
    """The objects of an image, numbered 1 to n in raster order.

    Args:
        image: any type.
        settings: what an object is.
        network: labels them in place of the threshold; it fills holes and cuts by itself.

    Raises:
        ValueError: the method finds no threshold.
    """
    smoothed = smooth(image, settings.gaussian_px)
    regions = _bright(smoothed, settings) if network is None else numbered(network(smoothed))
    wanted = filters.within_area(regions, settings.smallest, settings.largest)
    if settings.clear_border:
        wanted &= filters.off_border(regions)
    regions = regions.keep(wanted)
    if settings.apart_px > 0:
        moments = central_moments(regions, regions.area.astype(np.float64))
        centroids = np.stack([moments["y"], moments["x"]], axis=1)
        regions = regions.keep(filters.apart(centroids, settings.apart_px))
    return regions


def _bright(image: Num[np.ndarray, "y x"], settings: ObjectSettings) -> Regions:
    """What lies above the threshold, cut at its necks."""
    mask = foreground(image, settings.threshold)
    if settings.fill_holes:
        mask = filters.fill_holes(mask)
    regions = label_mask(mask)
    if settings.neck > 0:
        # What is too small will not grow by cutting it.
        regions = regions.keep(regions.area > settings.smallest)
        regions = split_touching(
            regions, neck=settings.neck, smoothing_px=settings.split_smoothing_px
        )
    return regions
