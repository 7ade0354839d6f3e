"""Which ids are one object: connected components of a graph of ids.

The object's id is the smallest of its members. A forest has an edge from each id to its root, so
that it never has more edges than ids, and two forests make one, in any order. Graphs that no
worker can hold are joined region by region, see `pieces`.
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
