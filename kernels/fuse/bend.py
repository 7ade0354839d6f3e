"""How one tile is bent, as drawing it needs to know.

A tile's matrix places the *straightened* tile: its forward map leads from voxels of the tile
to voxels of the straightened tile, near the same numbers, and the matrix from there to the
world. Drawing goes backwards: from output voxels by the inverse matrix to the straightened
tile, and from there by the inverse map to the voxels that were scanned.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.fill import fill_nearest
from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.maps.invert import invert


@dataclass(frozen=True, eq=False)
class Bend:
    """The inverse map of a tile.

    Attributes:
        inverse: from the straightened tile to the tile, known at all nodes; beyond its nodes
            stand those of its border.
        reach: no voxel moves further than this along any axis.
    """

    inverse: CoordinateMap
    reach: int

    @classmethod
    def of(cls, forward: CoordinateMap) -> Bend:
        """The inverse of a forward map, continued along its outermost links.

        Raises:
            ValueError: the map has an axis with a single node, or a node that is not known.
        """
        if not forward.known.all():
            raise ValueError("a bent tile needs a map that is known at all nodes")
        return cls(fill_nearest(invert(_wide(forward))), farthest(forward))

    @functools.cached_property
    def nodes(self) -> Float[np.ndarray, "d *lattice"]:
        """The offsets as they are interpolated, float32."""
        return self.inverse.u.astype(np.float32)

    @functools.cached_property
    def to_nodes(self) -> affine.Matrix:
        """From voxels of the straightened tile to node indices."""
        matrix = np.diag([*(1 / s for s in self.inverse.stride), 1.0])
        return matrix @ affine.translation([-float(o) for o in self.inverse.origin])

    def bent(self, points: affine.Points) -> affine.Points:
        """Points of the straightened tile, one per row, as points of the tile."""
        return points + offsets_at(self.inverse, points.T, "nearest").T


def farthest(forward: CoordinateMap) -> int:
    """How far a tile with this forward map reaches for its voxels; whole voxels."""
    # a hair for the rounding of the inverse
    return math.ceil(float(np.abs(_wide(forward).u).max()) + 1e-2)


def _wide(m: CoordinateMap) -> CoordinateMap:
    """The map continued beyond the tile by more than it moves anything."""
    most = np.abs(m.u).reshape(m.ndim, -1).max(axis=1)
    for _ in range(1 + math.ceil(float((most / m.stride).max()))):
        m = _extended(m)
    return m


def _extended(m: CoordinateMap) -> CoordinateMap:
    """One node more at both ends of each axis, on the line through the last two."""
    pad = [(0, 0)] + [(1, 1)] * m.ndim
    u = np.pad(m.u, pad, mode="reflect", reflect_type="odd")
    origin = tuple(o - s for o, s in zip(m.origin, m.stride, strict=True))
    return on_lattice(u, Lattice(origin, m.stride, u.shape[1:]))
