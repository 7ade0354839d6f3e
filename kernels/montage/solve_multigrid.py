"""Conjugate gradients with an algebraic multigrid for large systems of small blocks.

Smoothed aggregation after Vaněk, Mandel and Brezina 1996 (doi 10.1007/BF02238511). Nodes that
are linked and lie in one cell of a lattice form an aggregate, three nodes wide on each axis;
the positions that every tile has anyway replace a search through the graph. One cycle costs
a few matrix products, so half a million tiles are solved in seconds and linear memory, where a
factorisation fills in. Sums are NumPy's, not BLAS's: the same bits for any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import csgraph, linalg

Vector = Float[np.ndarray, " nk"]
Sparse = Any  # scipy.sparse carries no types
Carried = Callable[[np.ndarray], np.ndarray]

_WIDTH = 3  # nodes of an aggregate on each axis: what one smoothing step reaches
_COARSEST = 400  # blocks that are left to a direct solver
_STRONG = 1e-2  # couplings below this share of the diagonals join no aggregate
_SAFETY = 1.2  # power iteration finds the largest eigenvalue from below
_MIX = np.array([1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # cell -> one number


@dataclass(frozen=True)
class _Level:
    """A matrix, its damped inverse block diagonal, and the way to and from the next level."""

    matrix: Sparse
    inverse: Sparse
    prolong: Sparse
    restrict: Sparse


class Multigrid:
    """One symmetric V-cycle as an approximate inverse of a positive definite block matrix.

    Args:
        matrix: square `bsr_array` with `k x k` blocks; each term joins at most two blocks.
        centre: `(n, d)` where the nodes are.
        cell: `(n, d)` the lattice cell of each node, counted from 0.
        carried: offset from a group's centre to `(n, k, k)`, see `Motion.carried`.
    """

    def __init__(
        self,
        matrix: Sparse,
        centre: Float[np.ndarray, "n d"],
        cell: Int[np.ndarray, "n d"],
        carried: Carried,
    ) -> None:
        self._levels: list[_Level] = []
        while True:
            cell = cell // _WIDTH
            diagonal = _diagonal(matrix)
            label, groups = _aggregates(matrix, diagonal, cell)
            if len(centre) <= _COARSEST or groups > 0.8 * len(centre):
                break
            inverse = _damped_inverse(matrix, diagonal, finest=not self._levels)
            coarse = _means(centre, label, groups)
            member = carried(centre - coarse[label])
            tentative = _block_rows(member, label, groups)
            prolong = sparse.bsr_array(tentative - inverse @ (matrix @ tentative))
            restrict = sparse.bsr_array(prolong.T)
            self._levels.append(_Level(matrix, inverse, prolong, restrict))
            matrix = sparse.bsr_array(restrict @ (matrix @ prolong))
            matrix.sort_indices()
            centre, cell = coarse, cell[np.unique(label, return_index=True)[1]]
        self._coarsest = linalg.splu(sparse.csc_array(matrix))

    def __call__(self, residual: Vector) -> Vector:
        return self._cycle(residual, 0)

    def _cycle(self, residual: Vector, depth: int) -> Vector:
        if depth == len(self._levels):
            return self._coarsest.solve(residual)
        level = self._levels[depth]
        guess = level.inverse @ residual
        left = level.restrict @ (residual - level.matrix @ guess)
        guess += level.prolong @ self._cycle(left, depth + 1)
        guess += level.inverse @ (residual - level.matrix @ guess)
        return guess


def _rows(matrix: Sparse) -> Int[np.ndarray, " blocks"]:
    """The block row of each block."""
    return np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))


def _diagonal(matrix: Sparse) -> Float[np.ndarray, "n k k"]:
    return matrix.data[_rows(matrix) == matrix.indices]


def _block_rows(blocks: Float[np.ndarray, "n k k"], column: np.ndarray, columns: int) -> Sparse:
    """A matrix with one block in each row."""
    count, size = len(blocks), blocks.shape[1]
    shape = (count * size, columns * size)
    return sparse.bsr_array((blocks, column, np.arange(count + 1)), shape=shape)


def _damped_inverse(
    matrix: Sparse, diagonal: Float[np.ndarray, "n k k"], *, finest: bool
) -> Sparse:
    """`4 / (3 bound)` of the inverse block diagonal, for the spectral bound of the product.

    On the finest level the bound is 2, as each term joins two blocks and
    `(x + y)^2 <= 2 x^2 + 2 y^2`.
    """
    count = len(diagonal)
    inverse = _block_rows(np.linalg.inv(diagonal), np.arange(count), count)
    bound = 2.0 if finest else _SAFETY * _largest_eigenvalue(matrix, inverse)
    return inverse * (4 / (3 * bound))


def _aggregates(
    matrix: Sparse, diagonal: Float[np.ndarray, "n k k"], cell: Int[np.ndarray, "n d"]
) -> tuple[Int[np.ndarray, " n"], int]:
    """The aggregate of each node: what hangs together within a cell; and how many there are."""
    rows, columns = _rows(matrix), matrix.indices
    key = (cell.astype(np.uint64) * _MIX[: cell.shape[1]]).sum(axis=1)
    near = np.flatnonzero(key[rows] == key[columns])
    i, j, between = rows[near], columns[near], matrix.data[near]
    size = np.sqrt(np.einsum("nij,nij->n", diagonal, diagonal))
    strong = np.einsum("nij,nij->n", between, between) > _STRONG**2 * size[i] * size[j]
    joined = np.ones(np.count_nonzero(strong), np.int8), (i[strong], j[strong])
    graph = sparse.csr_array(joined, shape=(len(cell), len(cell)))
    groups, label = csgraph.connected_components(graph, directed=False)
    return label.astype(np.int64), int(groups)


def _means(
    values: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"], groups: int
) -> Float[np.ndarray, "groups d"]:
    total = np.stack([np.bincount(label, column, groups) for column in values.T], axis=1)
    return total / np.bincount(label, minlength=groups)[:, None]


def _largest_eigenvalue(matrix: Sparse, inverse: Sparse, rounds: int = 5) -> float:
    """Of `inverse @ matrix`, by power iteration from a fixed start."""
    vector = np.cos(np.arange(matrix.shape[0], dtype=np.float64) ** 1.5)
    for _ in range(rounds):
        vector = inverse @ (matrix @ (vector / np.sqrt((vector**2).sum())))
    return float(np.sqrt((vector**2).sum()))
