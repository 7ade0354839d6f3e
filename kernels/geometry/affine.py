"""Affine and perspective maps as homogeneous matrices.

A map of d-dimensional points is a `(d + 1, d + 1)` float64 matrix acting on columns
`(z, y, x, 1)` (or `(y, x, 1)`). A tile's matrix takes source voxels to world voxels.
Files hold the upper `d x (d + 1)` part where the last row is `0 … 0 1`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box

Matrix = Float[np.ndarray, "d1 d1"]
Points = Float[np.ndarray, "n d"]


def translation(offset: Sequence[float]) -> Matrix:
    """The map `p -> p + offset`."""
    matrix = np.eye(len(offset) + 1)
    matrix[:-1, -1] = offset
    return matrix


def recentre(matrix: Matrix, source: Sequence[int], target: Sequence[int]) -> Matrix:
    """The same map with its points counted from `target`, and its results from `source`."""
    local = matrix.copy()
    local[:, -1] += matrix[:, :-1] @ np.asarray(target, np.float64)
    local[:-1] -= np.multiply.outer(np.asarray(source, np.float64), local[-1])
    return local


def homogeneous(matrix: Sequence[Sequence[float]]) -> Matrix:
    """A square matrix from `d x (d + 1)` or `(d + 1) x (d + 1)` numbers.

    Raises:
        ValueError: another shape, a number that is not finite, or a singular map.
    """
    given = np.asarray(matrix, np.float64)
    if given.ndim != 2 or given.shape[1] not in (3, 4):
        raise ValueError(f"a 2-D map is 2x3 or 3x3, a 3-D map 3x4 or 4x4, got {given.shape}")
    columns = given.shape[1]
    if given.shape[0] == columns - 1:
        given = np.vstack([given, np.eye(columns)[-1]])
    if given.shape != (columns, columns):
        raise ValueError(f"a 2-D map is 2x3 or 3x3, a 3-D map 3x4 or 4x4, got {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("a map holds a number that is not finite")
    if abs(np.linalg.det(given)) < 1e-12:
        raise ValueError("a map is singular: it flattens the image")
    return given


def is_affine(matrix: Matrix) -> bool:
    *row, corner = matrix[-1].tolist()
    return corner == 1.0 and not any(row)


def apply(matrix: Matrix, points: Points) -> Points:
    """Maps points, one per row."""
    mapped = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    if is_affine(matrix):
        return mapped
    scale = points @ matrix[-1, :-1] + matrix[-1, -1]
    return mapped / scale[:, None]


def corners(box: Box) -> Points:
    """The centres of the corner voxels of a box, one per row."""
    ends = [(a, max(a, b - 1)) for a, b in zip(box.start, box.stop, strict=True)]
    return np.array(list(itertools.product(*ends)), np.float64)


def span(matrix: Matrix, box: Box) -> tuple[list[float], list[float]]:
    """The lowest and the highest coordinates that the voxel centres of a box are mapped to.

    Straight edges stay straight under affine and perspective maps, so the corners suffice.
    """
    if not is_affine(matrix):
        mapped = apply(matrix, corners(box))
        return mapped.min(axis=0).tolist(), mapped.max(axis=0).tolist()
    # Plain numbers: asked for each tile in each region, where arrays of three cost more.
    ends = [(a, max(a, b - 1)) for a, b in zip(box.start, box.stop, strict=True)]
    low, high = [], []
    for *row, shift in matrix[:-1].tolist():
        along = [(c * a, c * b) for c, (a, b) in zip(row, ends, strict=True)]
        low.append(sum(map(min, along), shift))
        high.append(sum(map(max, along), shift))
    return low, high


def bounding_box(matrix: Matrix, box: Box) -> Box:
    """The voxels whose centres can lie inside the mapped `box`.

    A hair (1e-6 voxel) is forgiven, so that a whole-numbered shift keeps every voxel.
    """
    low, high = span(matrix, box)
    return Box(
        tuple(math.ceil(v - 1e-6) for v in low), tuple(math.floor(v + 1e-6) + 1 for v in high)
    )


def inscribed_box(matrix: Matrix, box: Box) -> Box:
    """The voxels that surely lie inside the mapped box: each face is cut where it leans in most.

    Empty where the map turns the box by much, or mirrors it.
    """
    ends = corners(box)
    mapped = apply(matrix, ends)
    first = [mapped[ends[:, i] == a, i].max() for i, a in enumerate(box.start)]
    last = [mapped[ends[:, i] == b - 1, i].min() for i, b in enumerate(box.stop)]
    start = np.ceil(np.array(first) - 1e-6).astype(int)
    stop = np.floor(np.array(last) + 1e-6).astype(int) + 1
    return Box(tuple(start.tolist()), tuple(stop.tolist()))
