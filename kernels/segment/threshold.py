"""Grey values above which a pixel belongs to an object: scikit-image's methods, and the mean and
deviations of the Finkbeiner lab's program.

A threshold for the whole image depends on its histogram alone. That of an 8 or 16 bit image
has a bin per grey value, so nothing is lost, and it is made once. Images of other types go
to scikit-image as they are, which bins floats by 256.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import ndimage
from skimage import filters

GLOBAL = (
    "sd_from_mean", "mean", "minimum", "yen", "li", "isodata", "otsu", "triangle", "manual",
)  # fmt: skip
PER_PIXEL = ("local", "sauvola")
METHODS = (*GLOBAL, *PER_PIXEL)
# OpenCV counts in float32, which is exact up to here.
_MOST_COUNTED = 1 << 24
_MOST_SMOOTHED = 10_000


@dataclass(frozen=True)
class ThresholdSettings:
    """How the threshold is found.

    Attributes:
        method: one of `METHODS`.
        sd_factor: standard deviations above the mean (`sd_from_mean`).
        manual: the grey value (`manual`).
        block_px: side of the neighbourhood, odd (`local`, `sauvola`).
        sauvola_k: how much local contrast lowers the threshold (`sauvola`).
        floor: method of `GLOBAL` that gives the least grey value of an object, for `local` and
            `sauvola`, which find objects in an empty background too; "none" for no such value.
    """

    method: str
    sd_factor: float
    manual: float
    block_px: int
    sauvola_k: float
    floor: str = "none"


def foreground(
    image: Num[np.ndarray, "y x"], settings: ThresholdSettings
) -> Bool[np.ndarray, "y x"]:
    """The pixels above the threshold; none where all have one grey value.

    Raises:
        ValueError: the method finds no threshold in this image.
    """
    if settings.method not in PER_PIXEL:
        return _above(image, global_threshold(image, settings))
    mask = np.asarray(image > _local(image, settings))
    if settings.floor != "none":
        mask &= _above(image, global_threshold(image, replace(settings, method=settings.floor)))
    return mask


def _above(image: Num[np.ndarray, "y x"], level: float) -> Bool[np.ndarray, "y x"]:
    if image.dtype.kind not in "iu":
        return np.asarray(image > level)
    # A whole number of the image's own type compares several times faster than a float.
    info = np.iinfo(image.dtype)
    if level >= info.max:
        return np.zeros(image.shape, np.bool_)
    return np.asarray(image > image.dtype.type(max(int(np.floor(level)), info.min)))


def global_threshold(image: Num[np.ndarray, "y x"], settings: ThresholdSettings) -> float:
    """One grey value for the whole image.

    Raises:
        ValueError: the method finds none in this image, or is not known.
    """
    method = settings.method
    if method not in GLOBAL:
        raise ValueError(f"the method {method} gives no threshold for the whole image")
    if method == "manual":
        return settings.manual
    if image.dtype not in (np.uint8, np.uint16):
        return _of_image(image, settings)
    counts, greys = histogram(image)
    if counts.size == 1:
        return float(greys[0])
    return _of_histogram(counts, greys, settings)


def histogram(
    image: Num[np.ndarray, "y x"],
) -> tuple[Int[np.ndarray, "greys"], Int[np.ndarray, "greys"]]:
    """How often each grey value from the least to the largest occurs, and the values."""
    bins = np.iinfo(image.dtype).max + 1
    counts = np.zeros(bins, np.int64)
    rows = max(1, _MOST_COUNTED // max(image.shape[1], 1))
    for y in range(0, image.shape[0], rows):
        part = np.ascontiguousarray(image[y : y + rows])
        counts += cv2.calcHist([part], [0], None, [bins], [0, bins]).ravel().astype(np.int64)
    seen = np.flatnonzero(counts)
    span = slice(int(seen[0]), int(seen[-1]) + 1) if seen.size else slice(0, 1)
    return counts[span], np.arange(bins)[span]


def _of_histogram(
    counts: Int[np.ndarray, "greys"], greys: Int[np.ndarray, "greys"], settings: ThresholdSettings
) -> float:
    method = settings.method
    if method == "mean":
        return float(counts @ greys / counts.sum())
    if method == "sd_from_mean":
        mean = counts @ greys / counts.sum()
        deviation = np.sqrt(counts @ (greys - mean) ** 2 / counts.sum())
        return float(int(mean + settings.sd_factor * deviation))
    if method == "li":
        return _li(counts, greys)
    if method == "triangle":
        return _triangle(counts, greys)
    if method == "minimum":
        return _minimum(counts, greys)
    return float(getattr(filters, f"threshold_{method}")(hist=(counts, greys)))


def _li(counts: Int[np.ndarray, "greys"], greys: Int[np.ndarray, "greys"]) -> float:
    """Minimum cross entropy, Li & Lee (1993), by the iteration of Li & Tam (1998).

    Weights are float32, as in scikit-image, whose result this is to the bit.
    """
    height = np.arange(counts.size)
    weight = counts.astype(np.float32)
    level, before = float(counts @ height / counts.sum()), -np.inf
    while abs(level - before) > 0.5:
        before = level
        above = height > level
        high = np.average(height[above], weights=weight[above])
        low = np.average(height[~above], weights=weight[~above])
        if low == 0:
            break
        level = float((low - high) / (np.log(low) - np.log(high)))
    return level + float(greys[0])


def _triangle(counts: Int[np.ndarray, "greys"], greys: Int[np.ndarray, "greys"]) -> float:
    """The bin farthest below the line from the peak to the longer tail's end.

    Zack, Rogers & Latt (1977).
    """
    peak = int(np.argmax(counts))
    flipped = peak < counts.size - 1 - peak
    if flipped:
        counts, greys, peak = counts[::-1], greys[::-1], counts.size - 1 - peak
    norm = np.sqrt(counts[peak] ** 2 + peak**2)
    height, width = counts[peak] / norm, peak / norm
    distance = height * np.arange(peak) - width * counts[:peak]
    return float(greys[int(np.argmax(distance))])


def _minimum(counts: Int[np.ndarray, "greys"], greys: Int[np.ndarray, "greys"]) -> float:
    """The valley between two peaks, of a histogram smoothed until it has no more than two.

    Prewitt & Mendelsohn (1966). scikit-image looks for peaks in a loop over the bins, which
    takes minutes for 16 bit.
    """
    smoothed, peaks = counts.astype(np.float32), np.zeros(0, np.int64)
    for _ in range(_MOST_SMOOTHED):
        smoothed = ndimage.uniform_filter1d(smoothed, 3)
        peaks = _peaks(smoothed)
        if peaks.size < 3:
            break
    if peaks.size != 2:
        raise ValueError("the method minimum finds no threshold: the histogram has no two peaks")
    low, high = peaks
    return float(greys[low + np.argmin(smoothed[low : high + 1])])


def _peaks(values: Float[np.ndarray, "greys"]) -> Int[np.ndarray, "peaks"]:
    """Where values begin to fall after they rose; the first fall counts."""
    step = np.diff(values)
    moved = np.flatnonzero(step)
    falls = step[moved] < 0
    return moved[falls & ~np.append(False, falls[:-1])]


def _of_image(image: Num[np.ndarray, "y x"], settings: ThresholdSettings) -> float:
    method = settings.method
    if image.min() == image.max():
        return float(image.flat[0])
    if method == "sd_from_mean":
        return float(image.mean() + settings.sd_factor * image.std())
    try:
        return float(getattr(filters, f"threshold_{method}")(image))
    except RuntimeError as error:
        raise ValueError(f"the method {method} finds no threshold: {error}") from None


def _local(image: Num[np.ndarray, "y x"], settings: ThresholdSettings) -> Float[np.ndarray, "y x"]:
    if settings.method == "local":
        return filters.threshold_local(image, settings.block_px)
    return filters.threshold_sauvola(image, settings.block_px, settings.sauvola_k)
