"""Convex hulls of all objects at once, in whole numbers.

The hull is that of the midpoints of the pixels' edges, as in scikit-image. In doubled
coordinates they are whole, and the left side of an object is a chain of one point per
(half) row:

        . 2x      row 2y - 1        A point on or above the chord of its two neighbours is
      . 2x - 1    row 2y            no corner of the hull, whatever happens to the
        . 2x      row 2y + 1        neighbours: all such points go at once, again and again.

The right side is the same mirrored. A pixel belongs to the hull if its centre does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from warpbeam.kernels.segment.regions import Regions

Whole = Int[np.ndarray, "points"]


class _Chains(NamedTuple):
    """Points of several chains, one after another, rows rising inside each."""

    chain: Whole
    row: Whole
    value: Whole

    def only(self, kept: np.ndarray) -> _Chains:
        which = np.flatnonzero(kept)  # several times faster than three times by the mask
        return _Chains(self.chain.take(which), self.row.take(which), self.value.take(which))


def hull_area(regions: Regions) -> Int[np.ndarray, "count"]:
    """Pixels in the convex hull of each label 1 to `count`; 0 for a label without a pixel."""
    label, row, left, right = _extremes(regions)
    sides = (_side(label, row, left), _side(label + regions.count + 1, row, -right))
    hull = _envelope(_Chains(*map(np.concatenate, zip(*sides, strict=True))))
    first, last = _span(label, row, regions.count)
    rows = np.where(last >= first, last - first + 1, 0)
    owner = np.repeat(np.arange(1, regions.count + 1), rows)
    at = 2 * (np.arange(owner.size) - np.repeat(np.cumsum(rows) - rows - first, rows))
    edges = _first_inside(hull, owner, at) + _first_inside(hull, owner + regions.count + 1, at)
    return np.bincount(owner, 1 - edges, minlength=regions.count + 1)[1:].astype(np.int64)


def _extremes(regions: Regions) -> tuple[Whole, Whole, Whole, Whole]:
    """Label, row, and the outermost columns of every row of every label."""
    order = np.argsort(regions.label, kind="stable")
    label, row = regions.label[order], regions.row[order]
    if not order.size:
        return label, row, row, row
    new = np.ones(order.size, bool)
    new[1:] = (label[1:] != label[:-1]) | (row[1:] != row[:-1])
    start = np.flatnonzero(new)
    left = np.minimum.reduceat(regions.left[order], start)
    right = np.maximum.reduceat(regions.right[order], start)
    return label[start], row[start], left, right


def _side(chain: Whole, row: Whole, column: Whole) -> _Chains:
    """The points of one side, for columns that grow towards the inside."""
    points = _Chains(np.repeat(chain, 3), np.repeat(2 * row, 3), np.repeat(2 * column, 3))
    points.row[::3] -= 1
    points.row[2::3] += 1
    points.value[1::3] -= 1
    # Rows 2y + 1 of one pixel and 2y' - 1 of the next may be the same: the outer point stays.
    same = (points.row[:-1] == points.row[1:]) & (points.chain[:-1] == points.chain[1:])
    second = np.flatnonzero(same) + 1
    points.value[second] = np.minimum(points.value[second], points.value[second - 1])
    kept = np.ones(points.row.size, bool)
    kept[second - 1] = False
    return points.only(kept)


def _envelope(points: _Chains) -> _Chains:
    """The corners of the lower convex envelope of each chain, its ends among them."""
    while points.row.size > 2:
        chain, row, value = points
        inner = (chain[:-2] == chain[1:-1]) & (chain[2:] == chain[1:-1])
        below = (value[1:-1] - value[:-2]) * (row[2:] - row[:-2]) < (value[2:] - value[:-2]) * (
            row[1:-1] - row[:-2]
        )
        kept = np.ones(row.size, bool)
        kept[1:-1] = below | ~inner
        if kept.all():
            break
        points = points.only(kept)
    return points


def _span(
    label: Whole, row: Whole, count: int
) -> tuple[Int[np.ndarray, "count"], Int[np.ndarray, "count"]]:
    """First and last row of each label."""
    first, last = np.zeros(count + 1, np.int64), np.full(count + 1, -1)
    first[label[::-1]], last[label] = row[::-1], row
    return first[1:], last[1:]


def _first_inside(hull: _Chains, chain: Whole, row: Whole) -> Whole:
    """The smallest whole x with 2x on or above a chain's envelope at a (doubled) row."""
    if not row.size:
        return row
    period = int(hull.row.max()) + 3
    left = np.searchsorted(hull.chain * period + hull.row, chain * period + row, "right") - 1
    run, rise = hull.row[left + 1] - hull.row[left], hull.value[left + 1] - hull.value[left]
    above = hull.value[left] * run + rise * (row - hull.row[left])
    return -(-above // (2 * run))
