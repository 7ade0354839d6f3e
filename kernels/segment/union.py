"""Which ids are one object: connected components of a graph of ids, in one worker or in many.

The object's id is the smallest of its members. Where the graph fits one worker, forests are
merged: a forest has an edge from each id to its root, so that it never has more edges than ids,
and two forests make one, in any order. Where it does not, rounds of messages do: each id looks
at the smallest id that a neighbour knows, and then at what that one knows (pointer jumping), so
that knowledge travels twice as far in every round.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt64

from warpbeam.kernels.segment.regions import connected

Edges = UInt64[np.ndarray, "_ 2"]
Ids = UInt64[np.ndarray, "_"]


def forest(edges: Edges) -> Edges:
    """An edge `(id, root)` for each id of a graph that is no root; sorted."""
    ids, ends = np.unique(edges, return_inverse=True)
    a, b = ends.reshape(-1, 2).T
    component = connected(a, b, ids.size)
    # Ids are sorted and components numbered by their first members: the smallest is the root.
    root = np.empty(int(component.max(initial=-1)) + 1, np.uint64)
    root[component[::-1]] = ids[::-1]
    whole = np.stack([ids, root[component]], axis=1)
    return whole[whole[:, 0] != whole[:, 1]]


def merge(forests: list[Edges]) -> Edges:
    """The forest of several graphs together; associative and commutative."""
    return forest(np.concatenate([np.zeros((0, 2), np.uint64), *forests]))


def roots_of(ids: Ids, edges: Edges) -> Ids:
    """The root of each id in a forest; the id itself where the forest does not have it."""
    if not len(edges):
        return ids.copy()
    at = np.minimum(np.searchsorted(edges[:, 0], ids), len(edges) - 1)
    return np.where(edges[at, 0] == ids, edges[at, 1], ids)


def jump_rounds(edges: Edges) -> tuple[Edges, int]:
    """The same forest by rounds in which an id learns from its neighbours alone, and how many.

    A round is what a worker can do that sees one id, its neighbours, and what the id that it
    points to points to: first it hooks its root below the smallest that a neighbour points to,
    then it looks where that leads.
    """
    ids, ends = np.unique(edges, return_inverse=True)
    a, b = ends.reshape(-1, 2).T
    parent, rounds = np.arange(ids.size), 0
    while True:
        rounds += 1
        before = parent.copy()
        low, high = np.minimum(parent[a], parent[b]), np.maximum(parent[a], parent[b])
        np.minimum.at(parent, high, low)  # roots are hooked: whole trees follow
        np.minimum.at(parent, a, low)
        np.minimum.at(parent, b, low)
        parent = parent[parent]
        if (parent == before).all():
            break
    whole = np.stack([ids, ids[parent]], axis=1)
    return whole[whole[:, 0] != whole[:, 1]], rounds
