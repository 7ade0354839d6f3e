"""What is object and what is not in a volume, and objects that touch, cut apart.

Blocks are read with a halo, so that what a block says of its own voxels is what the whole volume
says: exactly for the threshold and the smoothing before it, and as far as the halo reaches for
the watershed, whose basins depend on the shape of the object around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Integer, Num
from scipy import ndimage
from skimage.segmentation import watershed

from warpbeam.kernels.segment.metrics import overlaps

# Beyond so many sigmas a Gaussian counts as 0.
_TRUNCATE = 3.0


@dataclass(frozen=True)
class BasinSettings:
    """How touching objects are cut: a watershed on the distance to what is no object.

    Attributes:
        voxel: zyx size of a voxel, in any unit.
        smoothing: sigma of the Gaussian over the distance, in the same unit.
        fill: whether basins grow over what is no object too, until they meet.
    """

    voxel: tuple[float, ...]
    smoothing: float
    fill: bool


def smoothing_halo(sigma_px: Sequence[float]) -> tuple[int, ...]:
    """How far a voxel's smoothed value reaches, zyx voxels."""
    return tuple(math.floor(_TRUNCATE * s + 0.5) for s in sigma_px)


def smooth(image: Num[np.ndarray, "z y x"], sigma_px: Sequence[float]) -> Num[np.ndarray, "z y x"]:
    """Gaussian smoothing, float32; the image itself where every sigma is 0."""
    if not any(sigma_px):
        return image
    wide: np.ndarray = ndimage.gaussian_filter(
        image.astype(np.float32), sigma_px, truncate=_TRUNCATE, mode="nearest"
    )
    return wide


def foreground(
    image: Num[np.ndarray, "z y x"], level: float, *, bright: bool
) -> Bool[np.ndarray, "z y x"]:
    """Voxels above a grey value, or those that are not (NaN is neither)."""
    return np.asarray(image > level if bright else image <= level)


def basins(
    mask: Bool[np.ndarray, "z y x"], settings: BasinSettings
) -> Integer[np.ndarray, "z y x"]:
    """Objects around the places that lie deepest inside the mask, numbered from 1; uint32.

    Every maximum of the smoothed distance to the background begins a basin, and voxels go to
    the basin that the distance rises to.
    """
    depth = _depth(mask, settings)
    # Plateaus have one maximum; where the mask ends nothing is a peak.
    top = (depth >= ndimage.maximum_filter(depth, size=3)) & mask
    peaks = np.empty(mask.shape, np.int32)
    ndimage.label(top, np.ones((3, 3, 3)), output=peaks)
    grown = watershed(-depth, peaks, mask=None if settings.fill else mask)
    return grown.astype(np.uint32)


def _depth(
    mask: Bool[np.ndarray, "z y x"], settings: BasinSettings
) -> Float32[np.ndarray, "z y x"]:
    """Distance to the background, smoothed; outside of the mask the negative distance to it."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    depth = ndimage.distance_transform_edt(mask, settings.voxel).astype(np.float32)
    if settings.fill:
        depth -= ndimage.distance_transform_edt(~mask, settings.voxel).astype(np.float32)
    sigma = [settings.smoothing / v for v in settings.voxel]
    return smooth(depth, sigma)


def numbered_inside(
    labels: Integer[np.ndarray, "z y x"], window: tuple[slice, ...]
) -> Integer[np.ndarray, "z y x"]:
    """Labels of a block with its halo, those that reach into the block numbered from 1.

    Args:
        labels: numbered from 1.
        window: where the block lies; what has no voxel there becomes background.
    """
    table = np.zeros(int(labels.max(initial=0)) + 1, labels.dtype)
    table[labels[window].ravel()] = 1
    table[0] = 0
    found = np.flatnonzero(table)
    table[found] = np.arange(1, found.size + 1)
    return table[labels]


def alike(
    here: Integer[np.ndarray, "z y x"], there: Integer[np.ndarray, "z y x"], least_iou: float
) -> Integer[np.ndarray, "pairs 2"]:
    """Pairs of labels that two blocks gave to the same voxels of the halo that they share.

    Touching is not enough: two objects that meet at the cut touch too. `least_iou` is the least
    intersection over union, within the shared voxels.
    """
    a, b, common = overlaps(here, there)
    size_a = np.bincount(here.ravel().astype(np.int64))[a]
    size_b = np.bincount(there.ravel().astype(np.int64))[b]
    share = common / (size_a + size_b - common)
    good = share >= least_iou
    return np.stack([a[good], b[good]], axis=1)
