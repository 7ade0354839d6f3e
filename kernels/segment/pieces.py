"""Objects of a volume, joined region by region: what is finished, and what still goes on.

A region is some blocks. Its pieces are the parts of objects that lie in it. An edge joins two
pieces that are one object; it is open in a region that holds one of its ends only, and such an
end's piece may go on beyond the region. Pieces without open edges are whole objects, whose size
is known, and leave the stage:

    blocks         regions of blocks      regions of regions    ...    the volume
    a-|-b c        a-b  c (finished)
    d e-|-         d (finished) e-|-      e-f (finished)

A region therefore hands on only what crosses its border, so that no worker sees the whole graph,
and a path through n blocks takes log n regions. Merging is associative and commutative: the id of
an object is the smallest of its parts' in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from warpbeam.kernels.segment.traits import Traits, added, joined
from warpbeam.kernels.segment.union import forest, roots_of

Ids = UInt64[np.ndarray, "_"]
OpenEdges = UInt64[np.ndarray, "_ 3"]


class Pieces(NamedTuple):
    """Pieces of one region.

    Attributes:
        ids: of each piece: the smallest of its parts; rising.
        traits: in the order of `ids`.
        edges: open ones: own end, other end (both as they were first named), and the piece that
            the own end belongs to.
    """

    ids: Ids
    traits: Traits
    edges: OpenEdges


class Merged(NamedTuple):
    """Pieces of several regions as those of one.

    Attributes:
        table: `[piece of a part, piece of the whole]`, by the first.
        finished: pieces without open edges.
        open: the others.
    """

    table: UInt64[np.ndarray, "_ 2"]
    finished: Pieces
    open: Pieces


def block_pieces(ids: Ids, traits: Traits, edges: UInt64[np.ndarray, "_ 2"]) -> Pieces:
    """Pieces of blocks, of which none is joined yet.

    Args:
        ids: of the objects of some blocks; rising.
        traits: in their order.
        edges: pairs of ids, at least one of which is among these.
    """
    ends = [edges, edges[:, ::-1]]
    both = np.unique(np.concatenate(ends), axis=0)
    mine = both[np.isin(both[:, 0], ids)]
    return Pieces(ids, traits, np.concatenate([mine, mine[:, :1]], axis=1))


def merge_pieces(parts: Sequence[Pieces], *, whole: bool = False) -> Merged:
    """The pieces of several regions together.

    Args:
        parts: of each region, one at least.
        whole: there is nothing beyond these regions, so that all is finished: an open edge leads
            to a block that could not be labelled.
    """
    ids = np.concatenate([np.zeros(0, np.uint64), *(part.ids for part in parts)])
    order = np.argsort(ids)
    traits = joined([part.traits for part in parts]).take(order)
    edges = np.concatenate([np.zeros((0, 3), np.uint64), *(part.edges for part in parts)])
    inside, still = _closed(edges)
    roots = forest(inside)
    table = np.stack([ids[order], roots_of(ids[order], roots)], axis=1)
    still = np.stack([still[:, 0], still[:, 1], roots_of(still[:, 2], roots)], axis=1)
    found, owner = np.unique(table[:, 1], return_inverse=True)
    sums = added(traits, owner, found.size)
    still = still[:0] if whole else still
    goes_on = np.isin(found, still[:, 2])
    return Merged(
        table,
        Pieces(found[~goes_on], sums.take(~goes_on), still[:0]),
        Pieces(found[goes_on], sums.take(goes_on), still),
    )


def _closed(edges: OpenEdges) -> tuple[UInt64[np.ndarray, "_ 2"], OpenEdges]:
    """Edges seen from both ends, as pairs of pieces; and those seen from one."""
    low, high = np.minimum(edges[:, 0], edges[:, 1]), np.maximum(edges[:, 0], edges[:, 1])
    order = np.lexsort((high, low))
    low, high, edges = low[order], high[order], edges[order]
    same = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    first = np.flatnonzero(same)
    alone = np.ones(len(edges), bool)
    alone[first] = alone[first + 1] = False
    return np.stack([edges[first, 2], edges[first + 1, 2]], axis=1), edges[alone]


def settled(table: UInt64[np.ndarray, "_ 2"], whole: Ids, final: Ids) -> UInt64[np.ndarray, "_ 2"]:
    """What becomes of the pieces of parts: `[piece of a part, final id]`, by the first.

    Args:
        table: of `merge_pieces`.
        whole: pieces of the whole; rising.
        final: their ids in the result, 0 for what is taken out. What is not among `whole` stays
            as it is.
    """
    if not whole.size:
        return table
    at = np.minimum(np.searchsorted(whole, table[:, 1]), whole.size - 1)
    known = whole[at] == table[:, 1]
    return np.stack([table[:, 0], np.where(known, final[at], table[:, 1])], axis=1)
