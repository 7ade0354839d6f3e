"""Which of many boxes overlap, and which tiles hang together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Num
from scipy import sparse
from scipy.sparse import csgraph

Corners = Num[np.ndarray, "n d"]
Pairs = Int[np.ndarray, "m 2"]
Labels = Int[np.ndarray, " n"]

_CELLS_PER_BOX = 16  # coarsen the hash above this, so that one huge box cannot fill the memory
_CANDIDATES = 1 << 22  # pairs looked at together: bounds the memory of the search


def overlapping_pairs(
    start: Corners, stop: Corners, *, min_extent: int | float | Sequence[int | float] = 1
) -> Pairs:
    """All pairs of axis-aligned boxes that share at least `min_extent` on every axis.

    A grid hash whose cell is the mean box: time and memory are linear in boxes and pairs for
    boxes of like size, and a few much larger boxes among them do no harm.

    Args:
        start: first corner of each box, `(n, d)`, array order, voxels; whole or fractional.
        stop: the corner outside, `(n, d)`; a box with `stop <= start` overlaps nothing.
        min_extent: the least `stop - start` of the common part, for all axes or one per axis.

    Returns:
        `(m, 2)` int64 box numbers `i < j`, in lexicographic order.

    Raises:
        ValueError: shapes differ, a corner is not finite, or `min_extent` is not positive.
    """
    if start.shape != stop.shape:
        raise ValueError(f"starts {start.shape} and stops {stop.shape} differ in shape")
    least = np.broadcast_to(np.asarray(min_extent, np.float64), start.shape[1:])
    if not (least > 0).all():
        raise ValueError(f"the least overlap must be positive on every axis, got {min_extent}")
    if not (np.isfinite(start).all() and np.isfinite(stop).all()):
        raise ValueError("a box has a corner that is not finite")
    kept = np.flatnonzero((stop - start >= least).all(axis=1))
    low, high = start[kept], stop[kept]
    found = [np.empty((0, 2), np.int64)]
    if len(kept) > 1:
        first, last = _cell_ranges(low.astype(np.float64), high.astype(np.float64))
        for i, j in _candidates(first, last):
            common = np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])
            hit = (common >= least).all(axis=1)
            found.append(np.stack([kept[i[hit]], kept[j[hit]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def components(count: int, pairs: Pairs) -> Labels:
    """The connected component of each of `count` tiles joined by `pairs`.

    Returns:
        `(count,)` int64 labels: 0 is the largest component, and so on down; of two as large,
        the one with the lower first tile comes first. A tile in no pair is its own component.
    """
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < count):
        raise ValueError(f"pairs name tiles {pairs.min()} to {pairs.max()}, there are {count}")
    ones = np.ones(len(pairs), np.int8)
    graph = sparse.coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found, labels = csgraph.connected_components(graph.tocsr(), directed=False)
    size = np.bincount(labels, minlength=found)
    _, first = np.unique(labels, return_index=True)
    rank = np.empty(found, np.int64)
    rank[np.lexsort((first, -size))] = np.arange(found)
    return rank[labels]


def _cell_ranges(low: Corners, high: Corners) -> tuple[Corners, Corners]:
    """First and last hash cell of each box on each axis, counted from 0."""
    origin = low.min(axis=0)
    cell = (high - low).mean(axis=0)
    while True:
        first = np.floor((low - origin) / cell)
        last = np.floor((high - origin) / cell)
        filled = np.prod(last - first + 1, axis=1).sum()
        if filled <= _CELLS_PER_BOX * len(low) and np.prod(last.max(axis=0) + 1) < 2**62:
            return first.astype(np.int64), last.astype(np.int64)
        cell = cell * 2


def _candidates(first: Corners, last: Corners) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of boxes in one cell, each pair once: in the cell where its common part begins."""
    box, cell = _entries(first, last)
    shape = last.max(axis=0) + 1
    key = np.ravel_multi_index(tuple(cell.T), tuple(shape.tolist()))
    order = np.argsort(key, kind="stable")
    box, cell, key = box[order], cell[order], key[order]
    end = np.searchsorted(key, key, side="right")
    partners = end - np.arange(len(key)) - 1
    cuts = np.searchsorted(np.cumsum(partners), np.arange(_CANDIDATES, partners.sum(), _CANDIDATES))
    for a, b in zip([0, *cuts], [*cuts, len(key)], strict=True):
        here = np.repeat(np.arange(a, b), partners[a:b])
        begin = np.cumsum(partners[a:b]) - partners[a:b]
        there = here + 1 + np.arange(len(here)) - np.repeat(begin, partners[a:b])
        i, j = box[here], box[there]
        once = (np.maximum(first[i], first[j]) == cell[here]).all(axis=1)
        yield i[once], j[once]


def _entries(
    first: Corners, last: Corners
) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, "entries d"]]:
    """Every (box, cell) where the box reaches into the cell."""
    counts = last - first + 1
    total = np.prod(counts, axis=1)
    box = np.repeat(np.arange(len(first)), total)
    rest = np.arange(len(box)) - np.repeat(np.cumsum(total) - total, total)
    cell = np.empty((len(box), first.shape[1]), np.int64)
    for axis in reversed(range(first.shape[1])):
        cell[:, axis] = first[box, axis] + rest % counts[box, axis]
        rest = rest // counts[box, axis]
    return box, cell
