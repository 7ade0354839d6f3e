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
Sparse = Any  # scipy.sparse.bsr_array carries no types
Carried = Callable[[np.ndarray], np.ndarray]

_WIDTH = 3  # nodes of an aggregate on each axis: what one smoothing step reaches
_COARSEST = 400  # blocks that are left to a direct solver
_STRONG = 1e-2  # couplings below this share of the diagonals join no aggregate
_SAFETY = 1.1  # power iteration finds the largest eigenvalue from below


@dataclass(frozen=True)
class _Level:
    matrix: Sparse
    inverse: Float[np.ndarray, "n k k"]
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
        bound = 2.0  # (x + y)^2 <= 2 x^2 + 2 y^2 bounds the spectrum where terms join two blocks
        while True:
            count, size = len(centre), matrix.blocksize[0]
            cell = cell // _WIDTH
            rows, diagonal = _rows_and_diagonal(matrix)
            label, groups = _aggregates(matrix, rows, diagonal, cell)
            if count <= _COARSEST or groups > 0.8 * count:
                break
            inverse = np.linalg.inv(diagonal)
            if self._levels:
                bound = _SAFETY * _largest_eigenvalue(matrix, inverse)
            inverse *= 4 / (3 * bound)
            group_centre = _means(centre, label, groups)
            group_cell = cell[np.unique(label, return_index=True)[1]]
            member = carried(centre - group_centre[label])
            shape = (count * size, groups * size)
            tentative = sparse.bsr_array((member, label, np.arange(count + 1)), shape=shape)
            scaled = sparse.bsr_array((inverse[rows] @ matrix.data, matrix.indices, matrix.indptr))
            prolong = sparse.bsr_array(tentative - scaled @ tentative)
            restrict = sparse.bsr_array(prolong.T)
            self._levels.append(_Level(matrix, inverse, prolong, restrict))
            matrix = sparse.bsr_array(restrict @ (matrix @ prolong))
            matrix.sort_indices()
            centre, cell = group_centre, group_cell
        self._coarsest = linalg.splu(sparse.csc_array(matrix))

    def __call__(self, residual: Vector) -> Vector:
        return self._cycle(residual, 0)

    def _cycle(self, residual: Vector, depth: int) -> Vector:
        if depth == len(self._levels):
            return self._coarsest.solve(residual)
        level = self._levels[depth]
        guess = _times(level.inverse, residual)
        left = level.restrict @ (residual - level.matrix @ guess)
        guess += level.prolong @ self._cycle(left, depth + 1)
        guess += _times(level.inverse, residual - level.matrix @ guess)
        return guess


def conjugate_gradients(
    matrix: Sparse, right: Vector, precondition: Multigrid, *, tolerance: float, most: int
) -> tuple[Vector, int]:
    """Solves `matrix x = right` until the preconditioned residual, which estimates the error
    of `x`, is at most `tolerance` everywhere; also returns the number of steps."""
    x, left = np.zeros_like(right), right.copy()
    direction, before = np.zeros_like(right), 1.0
    for step in range(most):
        better = precondition(left)
        if np.abs(better).max(initial=0.0) <= tolerance:
            return x, step
        now = float((left * better).sum())
        direction *= now / before if step else 0.0
        direction += better
        before = now
        image = matrix @ direction
        length = now / float((direction * image).sum())
        x += length * direction
        left -= length * image
    return x, most


def _times(blocks: Float[np.ndarray, "n k k"], vector: Vector) -> Vector:
    return np.einsum("nij,nj->ni", blocks, vector.reshape(len(blocks), -1)).ravel()


def _rows_and_diagonal(matrix: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """The block row of each block, and the blocks on the diagonal."""
    rows = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    return rows, matrix.data[rows == matrix.indices]


def _aggregates(
    matrix: Sparse, rows: np.ndarray, diagonal: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, int]:
    """The aggregate of each node: what hangs together within a cell; and how many there are."""
    near = np.flatnonzero((cell[rows] == cell[matrix.indices]).all(axis=1))
    i, j = rows[near], matrix.indices[near]
    size = np.sqrt(np.einsum("nij,nij->n", diagonal, diagonal))
    coupling = np.einsum("nij,nij->n", matrix.data[near], matrix.data[near])
    strong = coupling > _STRONG**2 * size[i] * size[j]
    graph = sparse.csr_array(
        (np.ones(strong.sum(), np.int8), (i[strong], j[strong])), shape=(len(cell), len(cell))
    )
    groups, label = csgraph.connected_components(graph, directed=False)
    return label, groups


def _means(values: np.ndarray, label: np.ndarray, groups: int) -> np.ndarray:
    total = np.stack([np.bincount(label, column, groups) for column in values.T], axis=1)
    return total / np.bincount(label, minlength=groups)[:, None]


def _largest_eigenvalue(matrix: Sparse, inverse: np.ndarray, rounds: int = 10) -> float:
    """Of `inverse @ matrix`, by power iteration from a fixed start."""
    vector = np.cos(np.arange(matrix.shape[0], dtype=np.float64) ** 1.5)
    for _ in range(rounds):
        vector = _times(inverse, matrix @ (vector / np.sqrt((vector**2).sum())))
    return float(np.sqrt((vector**2).sum()))
