"""Perimeters of all objects at once: border pixels, weighted by how their neighbours lie.

After Benkrid & Crookes, "Design and FPGA implementation of a perimeter estimator" (2000),
with the table of `skimage.measure.perimeter` for 4-neighbours. Every object is looked at by
itself, so that objects which touch have borders against one another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from warpbeam.kernels.segment.bounds import bounding_boxes
from warpbeam.kernels.segment.regions import Regions
from warpbeam.kernels.segment.runs import runs_above

# Weight of a border pixel with so many border pixels of its object beside it (rows: sharing an
# edge, columns: sharing a corner). Straight steps count 1, oblique ones sqrt(2), a step of each
# kind their mean; other patterns are the inside of a corner, and count nothing.
_WEIGHT = np.zeros((5, 5))
_WEIGHT[2:4, 0:3] = 1.0
_WEIGHT[0, 2] = _WEIGHT[1, 3] = np.sqrt(2)
_WEIGHT[1, 1:3] = (1 + np.sqrt(2)) / 2
# Objects are drawn apart from one another, on canvases of no more bytes together, unless one
# alone needs more.
_CANVAS_BYTES = 1 << 24

OfBorder = Int[np.ndarray, "border"]


def perimeter(regions: Regions) -> Float[np.ndarray, "count"]:
    """Length of the border of each label 1 to `count`, in pixels."""
    run, column = _border(regions)
    label, row = regions.label[run] - 1, regions.row[run]
    low_y, low_x, high_y, high_x = bounding_boxes(regions).values()
    width = high_x - low_x + 2  # with a frame of one pixel
    at = (row - low_y[label] + 1) * width[label] + column - low_x[label] + 1
    weight = np.empty(label.size)
    for place, mine in _canvases((high_y - low_y + 2) * width, label):
        weight[mine] = _weights((at + place[label])[mine], width[label][mine])
    return np.bincount(label, weight, minlength=regions.count).astype(np.float64)


def _border(regions: Regions) -> tuple[OfBorder, OfBorder]:
    """Run and column of each pixel with a neighbour over an edge that is not of its object.

    A run's other pixels are those strictly between its ends that runs above and runs below
    cover: again runs, mostly one.
    """
    here, there = runs_above(
        regions.row, regions.left, regions.right, width=regions.shape[1], reach=0
    )
    same = regions.label[here] == regions.label[there]
    here, there = here[same], there[same]
    below = here[np.argsort(there, kind="stable")]
    above_of, below_of = (np.bincount(runs, minlength=regions.row.size) for runs in (here, there))
    each = above_of * below_of
    run = np.repeat(np.arange(each.size), each)
    turn = np.arange(run.size) - np.repeat(np.cumsum(each) - each, each)
    upper = there[(np.cumsum(above_of) - above_of)[run] + turn // below_of[run]]
    lower = below[(np.cumsum(below_of) - below_of)[run] + turn % below_of[run]]
    left, right = regions.left, regions.right
    first = np.maximum(left[run] + 1, np.maximum(left[upper], left[lower]))
    last = np.minimum(right[run] - 1, np.minimum(right[upper], right[lower]))
    inner = first <= last
    return _outside(regions, run[inner], first[inner], last[inner])


def _outside(
    regions: Regions, run: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[OfBorder, OfBorder]:
    """Run and column of the pixels of runs that are outside of these parts, which are in order."""
    gaps = np.bincount(run, minlength=regions.row.size) + 1
    behind = np.cumsum(gaps)
    start, stop = np.empty(run.size + gaps.size, np.int64), np.empty(run.size + gaps.size, np.int64)
    leads, trails = np.zeros(start.size, np.bool_), np.zeros(start.size, np.bool_)
    leads[behind - gaps], trails[behind - 1] = True, True
    start[leads], start[~leads] = regions.left, last + 1
    stop[trails], stop[~trails] = regions.right + 1, first
    size = stop - start
    column = np.arange(int(size.sum())) + np.repeat(start - np.cumsum(size) + size, size)
    return np.repeat(np.repeat(np.arange(gaps.size), gaps), size), column


def _canvases(
    pixels: Int[np.ndarray, "count"], label: OfBorder
) -> Iterator[tuple[Int[np.ndarray, "count"], Bool[np.ndarray, "border"] | slice]]:
    """Where each object begins on its canvas, and which border pixels are on it."""
    place = np.cumsum(pixels) - pixels
    canvas = place // _CANVAS_BYTES
    last = int(canvas.max(initial=0))
    for k in range(last + 1):
        mine = canvas == k
        if mine.any():
            yield place - place[mine][0], mine[label] if last else slice(None)


def _weights(at: OfBorder, stride: OfBorder) -> Float[np.ndarray, "border"]:
    """The weight of each border pixel at a place on a canvas whose rows are `stride` long."""
    outline = np.zeros(int((at + stride).max(initial=0)) + 2, np.int8)
    outline[at] = 1
    up, down = at - stride, at + stride
    edges = outline[up] + outline[at - 1] + outline[at + 1] + outline[down]
    corners = outline[up - 1] + outline[up + 1] + outline[down - 1] + outline[down + 1]
    return _WEIGHT.take(5 * edges + corners)
