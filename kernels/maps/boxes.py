"""Boxes around, and inside, the image of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.fill import fill_missing

Vector = Float[np.ndarray, " d"]

# A hair, in voxels, so that rounding of `origin + index * stride` does not cost a node.
_HAIR = 1e-6


def outer_box(m: CoordinateMap) -> Box:
    """The smallest box of voxels of B that holds the image of every known node.

    Raises:
        ValueError: no node is known.
    """
    low, high = _outer(m)
    return Box(_whole(np.floor(low + _HAIR)), _whole(np.ceil(high - _HAIR) + 1))


def inner_box(m: CoordinateMap) -> Box:
    """The voxels of B that the image of the lattice surely covers, in every map of a batch.

    Each face is cut where it leans in most, so the box is tight for maps that turn little and
    may be empty for those that turn much. Unknown nodes are filled in first.

    Raises:
        ValueError: a map has no known node.
    """
    low, high = _inner(m)
    return Box(_whole(np.ceil(low - _HAIR)), _whole(np.floor(high + _HAIR) + 1))


def outer_lattice(m: CoordinateMap, stride: Sequence[int | float] | None = None) -> Lattice:
    """The nodes at whole multiples of `stride` that surround the image of every known node.

    Args:
        m: a map or a batch.
        stride: voxels of B; that of the map by default.
    """
    low, high = _outer(m)
    step = np.asarray(stride or m.stride, np.float64)
    return _lattice(np.floor((low + _HAIR) / step), np.ceil((high - _HAIR) / step), step)


def inner_lattice(m: CoordinateMap, stride: Sequence[int | float] | None = None) -> Lattice:
    """The nodes at whole multiples of `stride` that the image of the lattice surely covers.

    Raises:
        ValueError: there is none.
    """
    low, high = _inner(m)
    step = np.asarray(stride or m.stride, np.float64)
    return _lattice(np.ceil((low - _HAIR) / step), np.floor((high + _HAIR) / step), step)


def _outer(m: CoordinateMap) -> tuple[Vector, Vector]:
    reached = m.absolute[:, m.known]
    if not reached.size:
        raise ValueError("no node of the map is known")
    return reached.min(axis=1), reached.max(axis=1)


def _inner(m: CoordinateMap) -> tuple[Vector, Vector]:
    if not m.known.any(axis=tuple(range(-m.ndim, 0))).all():
        raise ValueError("a map has no known node")
    reached = fill_missing(m, outside="nearest").absolute
    low = [part.min(axis=axis - m.ndim).max() for axis, part in enumerate(reached)]
    high = [part.max(axis=axis - m.ndim).min() for axis, part in enumerate(reached)]
    return np.array(low), np.array(high)


def _lattice(first: Vector, last: Vector, step: Vector) -> Lattice:
    shape = tuple(int(n) for n in last - first + 1)
    return Lattice(tuple((first * step).tolist()), tuple(step.tolist()), shape)


def _whole(position: Vector) -> tuple[int, ...]:
    return tuple(math.floor(p) for p in position)
