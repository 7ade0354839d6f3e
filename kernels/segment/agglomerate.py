r"""Pieces of an over-segmented image, joined where the least speaks for a boundary between them.

The region graph has an edge for each pair of pieces that touch, with the number of faces where
they do and the sum of the boundary evidence there. Sums of blocks add up to those of the whole, in
any order. The best edge goes first, its pieces become one, and their edges to a third piece one
edge:

    a --- b        a and b are joined: what a and b
     \   /         have with c adds up, as if they
       c           had always been one piece.

That is hierarchical clustering by average linkage, weighted by the size of the boundary, as
proposed for electron microscopy by Nunez-Iglesias et al. 2013 (doi 10.1371/journal.pone.0071715).
An edge is the better, the less its mean evidence, and the more of the surface of one of the two it
is: a mitochondrion has a membrane all around, but only one neighbour.

A part of a graph, with pieces outside of it whose edges are not all known, can be joined as far as
those do not matter: two pieces whose best edge is the same one become one whatever else happens
(Bruynooghe 1978). The rest waits for a larger part, see `remaining`. For average linkage alone,
without what is enclosed, the result is that of the whole graph, unless scores tie.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Real, UInt64

from warpbeam.kernels.segment.union import Edges, forest, roots_of

Ids = UInt64[np.ndarray, "_"]


class Contacts(NamedTuple):
    """Pairs of pieces that touch; each once, `a < b`, sorted.

    Attributes:
        a, b: ids.
        faces: how many they share.
        total: sum of the boundary evidence over them.
    """

    a: UInt64[np.ndarray, "pairs"]
    b: UInt64[np.ndarray, "pairs"]
    faces: Int[np.ndarray, "pairs"]
    total: Float[np.ndarray, "pairs"]


class Surfaces(NamedTuple):
    """Pieces, sorted, and their faces with all others, those included that no contact tells any
    more."""

    ids: Ids
    faces: Int[np.ndarray, "_"]


def contacts(
    labels: Integer[np.ndarray, "*shape"],
    evidence: Real[np.ndarray, "*shape"],
    core: Sequence[int] | None = None,
) -> Contacts:
    """The contacts in one block.

    Args:
        labels: ids of the pieces; 0 is background and touches nothing.
        evidence: that a voxel lies on a boundary. A face counts with the greater of its two.
        core: shape of the block, where the arrays reach a layer further: faces are those of its
            voxels with what comes after them, so that those of all blocks are those of the whole.
    """
    core = labels.shape if core is None else core
    pairs, values = [np.zeros((0, 2), np.uint64)], [np.zeros(0)]
    for axis in range(labels.ndim):
        count = min(core[axis], labels.shape[axis] - 1)
        low, high = (
            tuple(slice(s, s + count) if k == axis else slice(n) for k, n in enumerate(core))
            for s in (0, 1)
        )
        one, other = labels[low], labels[high]
        face = (one != other) & (one != 0) & (other != 0)
        pairs.append(np.sort(np.stack([one[face], other[face]], axis=1).astype(np.uint64), axis=1))
        values.append(np.maximum(evidence[low][face], evidence[high][face]).astype(np.float64))
    ends, total = np.concatenate(pairs), np.concatenate(values)
    return _summed(ends, np.ones(len(ends), np.int64), total)


def added(parts: list[Contacts]) -> Contacts:
    """The contacts of several blocks together; associative and commutative but for rounding."""
    none = Contacts(*(np.zeros(0, t) for t in (np.uint64, np.uint64, np.int64, np.float64)))
    a, b, count, total = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    return _summed(np.stack([a, b], axis=1), count, total)


def _summed(
    ends: UInt64[np.ndarray, "n 2"], count: Int[np.ndarray, "n"], total: Float[np.ndarray, "n"]
) -> Contacts:
    pairs, owner = np.unique(ends, axis=0, return_inverse=True)
    sums = (np.bincount(owner.reshape(-1), weights, len(pairs)) for weights in (count, total))
    counts, totals = sums
    return Contacts(pairs[:, 0], pairs[:, 1], counts.astype(np.int64), totals.astype(np.float64))


def surfaces(graph: Contacts, known: Surfaces | None = None) -> Surfaces:
    """Of all pieces in a graph: as `known`, else what their contacts add up to."""
    ids, ends = np.unique(np.stack([graph.a, graph.b], axis=1), return_inverse=True)
    faces = np.bincount(ends.reshape(-1), np.repeat(graph.faces, 2), ids.size).astype(np.int64)
    if known is not None and known.ids.size:
        at = np.minimum(np.searchsorted(known.ids, ids), known.ids.size - 1)
        faces = np.where(known.ids[at] == ids, known.faces[at], faces)
    return Surfaces(ids, faces)


def agglomerate(
    graph: Contacts,
    threshold: float,
    enclosed: float = 0.0,
    *,
    surface: Surfaces | None = None,
    outside: Ids | None = None,
) -> Edges:
    """Which pieces are one: a forest, see `kernels.segment.union`.

    Args:
        graph: of all pieces.
        threshold: boundaries that score at most this go.
        enclosed: a boundary scores its mean evidence, less this times the share that it is of all
            faces of that piece which has fewer.
        surface: of all pieces, where that is more than the graph's contacts.
        outside: pieces of which not all contacts are there; nothing is joined that they may decide.
    """
    surface = surfaces(graph) if surface is None else surface
    ends = np.searchsorted(surface.ids, np.stack([graph.a, graph.b], axis=1))
    waits = np.isin(surface.ids, [] if outside is None else outside)
    graph_of_numbers = _Graph(ends, graph, surface.faces, enclosed, waits)
    joined = list(graph_of_numbers.joins(threshold))
    return forest(surface.ids[np.array(joined, np.int64).reshape(-1, 2)])


def renamed(graph: Contacts, joined: Edges) -> Contacts:
    """The contacts of what pieces have become; none within one."""
    ends = np.stack([roots_of(end, joined) for end in (graph.a, graph.b)], axis=1)
    apart = ends[:, 0] != ends[:, 1]
    return _summed(np.sort(ends[apart], axis=1), graph.faces[apart], graph.total[apart])


def remaining(
    graph: Contacts, surface: Surfaces, joined: Edges, limit: float, outside: Ids
) -> Surfaces:
    """What a larger part of the graph has still to look at: pieces as they are joined.

    Left out is what is outside, and what can be joined to nothing any more: all of its boundaries
    have mean evidence above `limit`, and so has then whatever they are averaged with. With nothing
    outside all is decided.

    Args:
        graph: as it was before.
        surface: of its pieces, all of them.
        joined: which of them are one.
        limit: threshold and what enclosing may add to it.
        outside: pieces of which not all contacts are there.
    """
    if not outside.size:
        return Surfaces(np.zeros(0, np.uint64), np.zeros(0, np.int64))
    root = roots_of(surface.ids, joined)
    inner = roots_of(graph.a, joined) == roots_of(graph.b, joined)
    ids, member = np.unique(root, return_inverse=True)
    within = np.searchsorted(ids, roots_of(graph.a[inner], joined))
    faces = np.bincount(member, surface.faces, ids.size)
    faces -= 2 * np.bincount(within, graph.faces[inner], ids.size)
    after = renamed(graph, joined)
    low = after.total / after.faces <= limit
    alive = np.isin(ids, np.concatenate([after.a[low], after.b[low]])) & ~np.isin(ids, outside)
    return Surfaces(ids[alive], faces[alive].astype(np.int64))


class _Graph:
    """The contacts of pieces that are numbered from 0, while they become one.

    Pairs wait in order of their scores. What a piece has joined since may have changed a pair's
    score: it is looked at when its turn comes, and waits anew.
    """

    def __init__(
        self,
        pairs: Int[np.ndarray, "n 2"],
        graph: Contacts,
        faces: Int[np.ndarray, "pieces"],
        enclosed: float,
        waits: Bool[np.ndarray, "pieces"],
    ) -> None:
        self._beside: list[dict[int, tuple[int, float]]] = [{} for _ in range(faces.size)]
        self._faces, self._enclosed = faces.tolist(), enclosed
        self._waits = waits.tolist()
        rows = zip(*pairs.T.tolist(), graph.faces.tolist(), graph.total.tolist(), strict=True)
        for a, b, shared, total in rows:
            self._beside[a][b] = self._beside[b][a] = (shared, total)
        self._queue = [(self._score(a, b), a, b) for a, b in pairs.tolist()]
        heapq.heapify(self._queue)

    def joins(self, threshold: float) -> Iterator[tuple[int, int]]:
        """Pairs of pieces in the order in which they become one."""
        while self._queue and self._queue[0][0] <= threshold:
            score, a, b = heapq.heappop(self._queue)
            if b not in self._beside[a]:
                continue  # one of them has been joined since
            now = self._score(a, b)
            if now != score:
                heapq.heappush(self._queue, (now, a, b))
                continue
            if self._waits[a] or self._waits[b]:
                # the best edge of the other one: whether it goes is not known here
                self._waits[a] = self._waits[b] = True
                continue
            into, gone = (a, b) if len(self._beside[a]) >= len(self._beside[b]) else (b, a)
            self._join(into, gone)
            yield into, gone

    def _score(self, a: int, b: int) -> float:
        faces, total = self._beside[a][b]
        return total / faces - self._enclosed * faces / min(self._faces[a], self._faces[b])

    def _join(self, into: int, gone: int) -> None:
        beside = self._beside
        shared, _ = beside[into].pop(gone)
        self._faces[into] += self._faces[gone] - 2 * shared
        for other, (faces, total) in beside[gone].items():
            if other == into:
                continue
            del beside[other][gone]
            before = beside[into].get(other, (0, 0.0))
            both = (before[0] + faces, before[1] + total)
            beside[into][other] = beside[other][into] = both
            low, high = sorted((into, other))
            heapq.heappush(self._queue, (self._score(low, high), low, high))
        beside[gone] = {}
