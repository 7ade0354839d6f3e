"""Which cell is which from one time to the next: one-to-one, after their common motion.

A plate moves when it is put back under the microscope: all cells of an image are shifted
together, often by more than the distance between two cells. The shift is found first, as the
one under which most cells have a partner nearby; what is left is each cell's own motion.
Cells are then assigned to one another with the least sum of squared distances (Kuhn, "The
Hungarian method", 1955), so that no cell has two successors, and no two have the same. A cell
that grows or dims much is a less likely successor: its traits count as a distance too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

Points = Float[np.ndarray, "_ 2"]
Traits = Float[np.ndarray, "_ traits"]
Numbers = Int[np.ndarray, "_"]
Before = Float[np.ndarray, "before 2"]
After = Float[np.ndarray, "after 2"]


@dataclass(frozen=True)
class TrackSettings:
    """How far things may move between two times, px.

    Attributes:
        shift_px: all cells together.
        step_px: a cell beside that.
        trait_px: the distance that a doubling of a trait, such as the area, counts as.
    """

    shift_px: float
    step_px: float
    trait_px: float


@dataclass(frozen=True)
class Cells:
    """The cells at one time.

    Attributes:
        at: centroids, y and x.
        traits: log2 of what a cell keeps, such as area and brightness; a row per cell.
    """

    at: Points
    traits: Traits


def common_shift(before: Before, after: After, settings: TrackSettings) -> Float[np.ndarray, "2"]:
    """The motion (y, x) of all cells together; 0 where there are none.

    Differences of positions of all pairs within reach vote: the true ones lie together, the
    others are spread over the disc. The densest place of a histogram, whose cells are half a
    step wide, is refined by the median around it.
    """
    if not len(before) or not len(after):
        return np.zeros(2)
    pairs = cKDTree(before).sparse_distance_matrix(
        cKDTree(after), settings.shift_px + settings.step_px, output_type="coo_matrix"
    )
    if not pairs.nnz:
        return np.zeros(2)
    votes = after[pairs.col] - before[pairs.row]
    width = settings.step_px / 2
    place = np.floor(votes / width).astype(np.int64)
    place -= place.min(axis=0)
    counts = np.zeros(place.max(axis=0) + 1)
    np.add.at(counts, tuple(place.T), 1)
    # Three cells wide, as a cell's border may run through the place.
    counts = ndimage.uniform_filter(counts, 3, mode="constant")
    best = np.array(np.unravel_index(np.argmax(counts), counts.shape))
    around = (np.abs(place - best) <= 1).all(axis=1)
    return np.asarray(np.median(votes[around], axis=0))


def assign(
    before: Cells, after: Cells, settings: TrackSettings
) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """Cells of two times that are the same one; each is in one pair at most.

    A pair costs its squared distance from where the common shift leads and the squares of the
    changes of its traits (less what changed for all, such as by bleaching); a cell that stays
    alone costs `step_px` squared (Jaqaman et al., 2008, doi:10.1038/nmeth.1237). The pairing
    that costs least in all is taken; no pair lies farther apart than `step_px`.
    """
    moved = before.at + common_shift(before.at, after.at, settings)
    pairs = cKDTree(moved).sparse_distance_matrix(
        cKDTree(after.at), settings.step_px, output_type="coo_matrix"
    )
    change = after.traits[pairs.col] - before.traits[pairs.row]
    if len(change):
        change = change - np.median(change, axis=0)
    price = pairs.data**2 + settings.trait_px**2 * (change**2).sum(axis=1)
    shape = (len(before.at), len(after.at))
    return _cheapest(pairs.row, pairs.col, price, settings.step_px**2, shape)


def _cheapest(
    row: Int[np.ndarray, "edges"],
    column: Int[np.ndarray, "edges"],
    price: Float[np.ndarray, "edges"],
    alone: float,
    shape: tuple[int, ...],
) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """The cheapest assignment over a sparse graph in which any node may stay alone.

    Each node gets a partner that stands for staying alone, and partners of paired nodes take
    one another for nothing: a full matching exists then, and only near pairs are looked at.
    """
    rows, columns = shape
    if not row.size:
        none = np.zeros(0, np.int64)
        return none, none
    every_row, every_column = np.arange(rows), np.arange(columns)
    # All prices are one higher than said: an edge of weight 0 would be no edge.
    prices = (price, np.full(rows + columns, alone), np.zeros(row.size))
    left = (row, every_row, rows + every_column, rows + column)
    right = (column, columns + every_row, every_column, columns + row)
    graph = sparse.coo_array(
        (np.concatenate(prices) + 1, (np.concatenate(left), np.concatenate(right))),
        shape=(rows + columns, rows + columns),
    )
    a, b = sparse.csgraph.min_weight_full_bipartite_matching(graph.tocsr())
    paired = (a < rows) & (b < columns)
    return a[paired].astype(np.int64), b[paired].astype(np.int64)


def identities(times: list[Cells], settings: TrackSettings) -> list[Numbers]:
    """A number for each cell at each time: the same for the same cell, from 1, none twice.

    A cell without a partner in the time before is a new one.
    """
    found: list[Numbers] = []
    following = 1
    for k, cells in enumerate(times):
        own = np.zeros(len(cells.at), np.int64)
        if k:
            before, after = assign(times[k - 1], cells, settings)
            own[after] = found[-1][before]
        new = np.flatnonzero(own == 0)
        own[new] = following + np.arange(new.size)
        following += new.size
        found.append(own)
    return found
