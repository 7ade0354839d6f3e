"""Runs of an image: pixels of one value side by side in a row; 0 is background."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Integer

OfRuns = Int[np.ndarray, "runs"]
Pairs = Int[np.ndarray, "pairs"]
_OCTET = 8


def runs_of(
    values: Bool[np.ndarray, "y x"] | Integer[np.ndarray, "y x"],
) -> tuple[OfRuns, OfRuns, OfRuns, np.ndarray]:
    """Row, first and last column, and value of each run, in raster order.

    Most of an image is background: eight pixels are looked at as one word, and only words with
    something in them are looked into.
    """
    octets, per_row = _octets(values)
    something = octets if octets.dtype == np.bool_ else octets != 0
    seen = np.flatnonzero(something.view(np.uint64) != 0)
    flat = octets.take(seen, axis=0).reshape(-1)
    change = np.ones(flat.size + 1, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=change[1:-1])
    # Words that do not lie side by side in a row are parted from one another.
    change[_OCTET:-1:_OCTET] |= (np.diff(seen) != 1) | (seen[1:] % per_row == 0)
    inside = flat != 0
    first = np.flatnonzero(change[:-1] & inside)
    last = np.flatnonzero(change[1:] & inside)
    row, left = np.divmod(seen[first // _OCTET] * _OCTET + first % _OCTET, per_row * _OCTET)
    return row, left, left + last - first, flat[first]


def _octets(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The pixels in words of eight, rows filled up with background; words per row."""
    height, width = values.shape
    per_row = -(-width // _OCTET)
    if width % _OCTET or not values.flags.c_contiguous:
        filled = np.zeros((height, per_row * _OCTET), values.dtype)
        filled[:, :width] = values
        values = filled
    return values.reshape(-1, _OCTET), per_row


def runs_above(
    row: OfRuns, left: OfRuns, right: OfRuns, *, width: int, reach: int
) -> tuple[Pairs, Pairs]:
    """Every run with each run of the row above that it meets, as two lists of numbers.

    Args:
        row: y of each run, in raster order.
        left: x of its first pixel.
        right: x of its last pixel.
        width: of the image.
        reach: 0 where pixels must share an edge to meet, 1 where a corner will do.
    """
    # In an image that is wider by two columns, no run reaches from one row into another.
    start, end = row * (width + 2) + left, row * (width + 2) + right
    above = np.searchsorted(end, start - (width + 2) - reach, "left")
    stop = np.searchsorted(start, end - (width + 2) + reach, "right")
    touching = np.maximum(stop - above, 0)
    here = np.repeat(np.arange(row.size), touching)
    there = np.arange(here.size) + np.repeat(above - np.cumsum(touching) + touching, touching)
    return here, there
