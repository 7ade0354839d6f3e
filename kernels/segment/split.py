"""Touching objects are cut at their necks: a watershed on the distance to the background.

Every peak of the distance begins a part. A part is a ball's worth of object: its peak is
its radius, and between two parts lies a neck, whose half width is the largest distance on
the line where they meet.

      .-~~-.   .-~~-.       A cut is made where the neck is narrower than `neck` times the
     (   r1  )=(  r2   )    narrower of the two parts. That is a ratio: it does not ask how
      '-__-'   '-__-'       large cells are, nor the magnification.

The order of the cuts does not matter: parts are joined over the widest neck first.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from skimage.segmentation import watershed

from warpbeam.kernels.segment.bounds import bounding_boxes
from warpbeam.kernels.segment.regions import Regions, label_pieces

Crop = Float[np.ndarray, "y x"]


def split_touching(regions: Regions, *, neck: float, smoothing_px: float) -> Regions:
    """The objects, those that consist of several round parts cut into them.

    Args:
        regions: the objects.
        neck: half width of a neck over the radius of the narrower part, below which it is cut.
        smoothing_px: Gaussian over the distance, against peaks of ragged borders.
    """
    labels = np.pad(regions.image().astype(np.int64), 1)
    distance = cv2.distanceTransform(
        (labels > 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    smooth = cv2.GaussianBlur(distance, (0, 0), smoothing_px) if smoothing_px > 0 else distance
    peaks = (smooth >= cv2.dilate(smooth, np.ones((3, 3), np.uint8))) & (labels > 0)
    boxes = bounding_boxes(regions)
    several = np.unique(_repeated(labels, peaks))
    following = regions.count
    for label in several:
        low_y, low_x, high_y, high_x = (int(box[label - 1]) for box in boxes.values())
        window = np.s_[low_y : high_y + 2, low_x : high_x + 2]  # in the frame, with its margin
        inside = labels[window] == label
        parts = _parts(smooth[window], inside, peaks[window] & inside, neck)
        cut = inside & (parts > 1)
        labels[window][cut] = parts[cut] - 1 + following
        following += max(int(parts.max()) - 1, 0)
    return label_pieces(labels[1:-1, 1:-1])[0] if following > regions.count else regions


def _repeated(
    labels: Integer[np.ndarray, "y x"], peaks: Bool[np.ndarray, "y x"]
) -> Int[np.ndarray, "found"]:
    """The labels with more than one peak (one that is flat counts once)."""
    flat = labels * peaks
    _, owner = label_pieces(flat)
    counts = np.bincount(owner)
    return np.flatnonzero(counts > 1)


def _parts(
    distance: Crop, inside: Bool[np.ndarray, "y x"], peaks: Bool[np.ndarray, "y x"], neck: float
) -> Int[np.ndarray, "y x"]:
    """One object's parts, numbered from 1."""
    markers, _ = label_pieces(peaks)
    basins = watershed(-distance, markers.image().astype(np.int32), mask=inside)
    heights = np.zeros(markers.count + 1)
    np.maximum.at(heights, basins.ravel(), distance.ravel())
    part = np.arange(markers.count + 1)
    a, b, width = _necks(basins, distance, markers.count)
    for first, second, half in zip(a, b, width, strict=True):
        one, other = part[first], part[second]
        if one != other and half >= neck * min(heights[one], heights[other]):
            joined = min(one, other)
            heights[joined] = max(heights[one], heights[other])
            part[(part == one) | (part == other)] = joined
    numbers = np.unique(part, return_inverse=True)[1]
    return numbers[basins]


def _necks(
    basins: Int[np.ndarray, "y x"], distance: Crop, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of basins that meet, and half the width of the neck between; the widest first."""
    pairs, heights = [], []
    for one, other in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        a, b = basins[one], basins[other]
        meet = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a[meet], b[meet]), np.maximum(a[meet], b[meet])
        pairs.append(low.astype(np.int64) * (count + 1) + high)
        heights.append(np.minimum(distance[one][meet], distance[other][meet]))
    codes, owner = np.unique(np.concatenate(pairs), return_inverse=True)
    width = np.zeros(codes.size)
    np.maximum.at(width, owner, np.concatenate(heights))
    order = np.lexsort((codes, -width))
    return codes[order] // (count + 1), codes[order] % (count + 1), width[order]
