"""Coordinate maps: dense displacement fields on a regular lattice.

A map M from frame A to frame B holds offsets `u[component, (z,) y, x]`, in voxels, at the nodes
of a lattice in A: the point p of A is the point `M(p) = p + u(p)` of B. Between nodes u is
multilinear; beyond the outermost nodes, and next to a node that is NaN, it is not known. To
render B's data on A's grid, sample B at M(p): a pull.

Laws, with `compose(a, b)` = "a, then b":

    compose(identity, m) = compose(m, identity) = m
    compose(compose(a, b), c) = compose(a, compose(b, c))        to interpolation error
    compose(m, invert(m)) = compose(invert(m), m) = identity     where both are known
    invert(compose(a, b)) = compose(invert(b), invert(a))
    warp(image, compose(a, b)) = warp(warp(image, b), a)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice

Offsets = Float[np.ndarray, "d *shape"]


@dataclass(frozen=True, eq=False)
class CoordinateMap:
    """A coordinate map, or a batch of them on the same lattice.

    Attributes:
        u: offsets `[component, *batch, (z,) y, x]`, float32 or float64, in voxels, components in
            array order; NaN where not known. The number of components is the number of lattice
            axes, which are the last ones: `[2, z, y, x]` is one 2-D map per section z,
            `[3, z, y, x]` one 3-D map.
        origin: position of the first node, voxels.
        stride: voxels between nodes.

    Raises:
        ValueError: the shape or type is none of these, or the lattice is invalid.
    """

    u: Offsets
    origin: tuple[int | float, ...]
    stride: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if len(self.u) not in (2, 3) or self.u.ndim <= len(self.u):
            raise ValueError(f"a map has shape [2, …, y, x] or [3, …, z, y, x], got {self.u.shape}")
        if self.u.dtype not in (np.float32, np.float64):
            raise ValueError(f"offsets are float32 or float64, got {self.u.dtype}")
        _ = self.lattice  # checks itself

    @property
    def ndim(self) -> int:
        """Dimensions of the space, 2 or 3."""
        return len(self.u)

    @property
    def lattice(self) -> Lattice:
        return Lattice(self.origin, self.stride, self.u.shape[-self.ndim :])

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch; `()` for a single map."""
        return self.u.shape[1 : -self.ndim]

    @property
    def known(self) -> Bool[np.ndarray, "*shape"]:
        """Which nodes are known, `[*batch, (z,) y, x]`."""
        return np.all(np.isfinite(self.u), axis=0)

    @property
    def absolute(self) -> Offsets:
        """M at the nodes, in voxels of B: the shape of `u`, float64."""
        nodes = self.lattice.nodes()
        return self.u + nodes.reshape(self.ndim, *[1] * len(self.batch), *nodes.shape[1:])

    def section(self, *index: int) -> CoordinateMap:
        """One map of the batch."""
        place: tuple[int | slice, ...] = (slice(None), *index)
        return replace(self, u=self.u[place])

    def with_offsets(self, u: Offsets) -> CoordinateMap:
        """Other offsets at the same nodes."""
        return replace(self, u=u)

    def crop(self, nodes: Box) -> CoordinateMap:
        """The part on a box of node indices."""
        inside = nodes & Box.of_shape(self.lattice.shape)
        batch = (slice(None),) * (self.u.ndim - self.ndim)
        return on_lattice(self.u[batch + inside.slices], self.lattice.crop(inside))


def on_lattice(u: Offsets, lattice: Lattice) -> CoordinateMap:
    """Offsets at the nodes of a lattice.

    Raises:
        ValueError: the shapes differ.
    """
    if u.shape[-lattice.ndim :] != lattice.shape:
        raise ValueError(f"offsets {u.shape} do not fit the lattice {lattice.shape}")
    return CoordinateMap(u, lattice.origin, lattice.stride)


def identity(lattice: Lattice, batch: Sequence[int] = ()) -> CoordinateMap:
    """The map that moves nothing, float64."""
    return on_lattice(np.zeros((lattice.ndim, *batch, *lattice.shape)), lattice)


def from_absolute(positions: Offsets, lattice: Lattice) -> CoordinateMap:
    """A map from the places where the nodes go.

    Args:
        positions: `[component, *batch, (z,) y, x]`, voxels of B.
        lattice: the nodes.
    """
    batch = positions.ndim - 1 - lattice.ndim
    nodes = lattice.nodes().reshape(lattice.ndim, *[1] * batch, *lattice.shape)
    return on_lattice((positions - nodes).astype(positions.dtype), lattice)


def from_affine(
    matrix: affine.Matrix | Float[np.ndarray, "d d1"], lattice: Lattice
) -> CoordinateMap:
    """An affine or perspective map sampled at the nodes, float64.

    Args:
        matrix: `(d + 1, d + 1)`, or `(d, d + 1)` of an affine map, takes points of A to points
            of B.
        lattice: the nodes.

    Raises:
        ValueError: the matrix does not act on as many dimensions as the lattice has.
    """
    if matrix.shape == (lattice.ndim, lattice.ndim + 1):
        matrix = affine.homogeneous(matrix.tolist())
    if len(matrix) != lattice.ndim + 1:
        raise ValueError(f"a {matrix.shape} matrix does not act on a {lattice.ndim}-D lattice")
    nodes = lattice.nodes()
    moved = affine.apply(matrix, nodes.reshape(lattice.ndim, -1).T)
    return on_lattice(moved.T.reshape(nodes.shape) - nodes, lattice)
