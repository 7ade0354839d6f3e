"""The meshes of overlapping tiles, solved together so that the tiles meet.

Each tile has a lattice of nodes with offsets `u` in the world, px, from where its placement
puts them. A point `p` of tile a and a point `q` of tile b that show the same thing are `apart`
as they are placed, and

    E = sum of bending(u of each tile) + sum of w/2 |apart + u_a(p) - u_b(q)|^2 + ties to rest

is least, with u multilinear between nodes. Point pairs share the difference among both tiles,
bending carries it on into the parts of a tile that no other covers, and the anchor, a weak tie to
the placement, decides what the pairs leave open: common motions of all tiles, and tiles without
any pair. It holds linear parts of `u` more than the rest, because bending does not hold them at
all: the least motion that shifts an overlap would else turn or stretch the whole tile. Wrong pairs
lose: they are reweighted (Geman and McClure), with a cutoff that is lowered from round to round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.linear.factorised import factorised
from warpbeam.kernels.linear.geman_mcclure import axis_scale, geman_mcclure
from warpbeam.kernels.mesh.bending import bending_forms
from warpbeam.kernels.mesh.lattice import assembled

Field = Float[np.ndarray, "..."]  # tiles differ in shape
Points = Float[np.ndarray, "n d"]
Nodes = Float[np.ndarray, "nodes d"]
Flat = Float[np.ndarray, " _"]

_ROUNDS = 20  # of reweighting; three to six are usual
_SHRINK = 4.0  # how fast the scale may fall in a round
_SETTLED = 5e-3  # mean change of weights, below which they are final
_REJECTED = 0.1  # a pair of less weight is taken out
_CG_STEPS = 500
_STALE_STEPS = 12  # more steps than this, and the next round gets a preconditioner of its own
# How much more than anything else linear parts are tied: a shift then stays a shift.
_LINEAR = 20.0
# Nodes up to which the whole matrix is factorised: a second, 200 MB.
_DIRECT_NODES = 40_000
# Nodes along an axis of a tile on the second level of larger ones.
_COARSE_NODES = 5


@dataclass(frozen=True)
class PointPairs:
    """Points of two tiles that show the same thing.

    Attributes:
        first, second: numbers of the tiles.
        p: points of the first tile, in its voxels.
        q: points of the second tile, in its voxels.
        apart: where the placement has p, less where it has q, px of the world.
        weight: about the number of nodes that a pair stands for; at least 0.

    Raises:
        ValueError: a value is not finite, or a weight negative.
    """

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    p: Points
    q: Points
    apart: Points
    weight: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        columns = (self.first, self.second, self.p, self.q, self.apart, self.weight)
        if not all(np.isfinite(column).all() for column in columns):
            raise ValueError("a point pair holds a value that is not finite")
        if (self.weight < 0).any():
            raise ValueError(f"weights are at least 0, got {self.weight.min()}")

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class TileMeshes:
    """Meshes at rest.

    Attributes:
        offsets: of the nodes of each tile, `[component, (z,) y, x]`, px of the world.
        apart: what is left between the points of each pair, px of the world.
        kept: the share of each pair's weight that was left; 0: rejected.
        scale_px: standard deviation on one axis of the good pairs.
        converged: whether the last solve reached its tolerance.
    """

    offsets: tuple[Field, ...]
    apart: Points
    kept: Float[np.ndarray, " n"]
    scale_px: float
    converged: bool


def relax_tiles(
    lattices: Sequence[Lattice],
    pairs: PointPairs,
    *,
    bending_px: float,
    anchor: float,
    least_scale_px: float = 0.1,
    tolerance_px: float = 1e-3,
) -> TileMeshes:
    """The meshes on which most point pairs agree.

    Args:
        lattices: nodes of each tile, in its voxels; points beyond them belong to the border.
        pairs: see `PointPairs`.
        bending_px: wavelength of which bending leaves half to pairs of weight 1 on every node
            that pull at one tile only; see `mesh.bending`.
        anchor: weight of the tie of each node to its placement, above 0.
        least_scale_px: no pair is believed to be better than this.
        tolerance_px: root mean square error of the solution.

    Raises:
        ValueError: a pair names a tile that is not there, or `anchor` is not positive.
    """
    if not anchor > 0:
        raise ValueError(f"without an anchor the tiles are free to drift; got {anchor}")
    numbers = np.concatenate([pairs.first, pairs.second])
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(lattices)):
        raise ValueError(f"pairs name tiles {numbers.min()} to {numbers.max()} of {len(lattices)}")
    system = _System(lattices, pairs, bending_px, anchor)
    if not len(pairs):
        return TileMeshes(system.split(system.rest), pairs.apart, pairs.weight, 0.0, True)
    u, _ = system.solve(pairs.weight, system.rest, tolerance_px)
    left = system.left(u)
    noise = _scale(left, pairs.weight, least_scale_px)
    scale = 2 * noise
    kept = geman_mcclure(_squared(left), scale)
    for _ in range(_ROUNDS):
        u, _ = system.solve(pairs.weight * kept, u, 0.3 * noise)
        left = system.left(u)
        noise = _scale(left, pairs.weight, least_scale_px)
        settled, scale = scale < 1.1 * noise, max(noise, scale / _SHRINK)
        before, kept = kept, geman_mcclure(_squared(left), scale)
        if settled and np.abs(kept - before).mean() <= _SETTLED:
            break
    kept[kept < _REJECTED] = 0.0
    u, converged = system.solve(pairs.weight * kept, u, tolerance_px)
    return TileMeshes(system.split(u), system.left(u), kept, noise, converged)


@dataclass
class _System:
    """The normal equations; the same for every component of the offsets.

    Unknowns are the nodes of all tiles, one tile after another; fields are `[node, component]`.
    """

    lattices: Sequence[Lattice]
    pairs: PointPairs
    bending_px: float
    anchor: float
    _precondition: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        sizes = [int(np.prod(lattice.shape)) for lattice in self.lattices]
        self.first = np.concatenate([[0], np.cumsum(sizes)])
        ndim = self.lattices[0].ndim
        self.rest = np.zeros((self.first[-1], ndim))
        self.here = _interpolation(self.lattices, self.first, self.pairs.first, self.pairs.p)
        self.there = _interpolation(self.lattices, self.first, self.pairs.second, self.pairs.q)
        self.difference = sparse.csr_array(self.here - self.there)
        bending = [_bending(lattice, self.bending_px) for lattice in self.lattices]
        tie = self.anchor * sparse.identity(self.first[-1])
        self.stiffness = sparse.csr_array(sparse.block_diag(bending) + tie)
        self.linear = sparse.csr_array(sparse.block_diag(list(map(_linear, self.lattices))))

    def left(self, u: Nodes) -> Points:
        """What is left between the points of each pair."""
        return self.pairs.apart + self.difference @ u

    def split(self, u: Nodes) -> tuple[Field, ...]:
        """The offsets of each tile as a field."""
        return tuple(
            u[a:b].T.reshape(-1, *lattice.shape).copy()
            for a, b, lattice in zip(self.first[:-1], self.first[1:], self.lattices, strict=True)
        )

    def solve(self, weight: Flat, start: Nodes, tolerance: float) -> tuple[Nodes, bool]:
        """The least energy with the given weights, and whether it was reached."""
        weigh = sparse.diags_array(weight)
        matrix = sparse.csr_array(self.stiffness + self.difference.T @ (weigh @ self.difference))
        if self._precondition is None:
            self._precondition = self._preconditioner(matrix, weigh)
        tied = _Tied(matrix, self.linear, self.anchor * _LINEAR, start.shape)
        right = -(self.difference.T @ (weight[:, None] * self.left(start)))
        right -= self.stiffness @ start + tied.linear_part(start)
        step, used = conjugate_gradients(
            tied,
            right.ravel(),
            lambda r: self._precondition(r.reshape(start.shape)).ravel(),
            tolerance=tolerance,
            most=_CG_STEPS,
        )
        if used > _STALE_STEPS:
            self._precondition = None
        return start + step.reshape(start.shape), used < _CG_STEPS

    def _preconditioner(self, matrix: Any, weigh: Any) -> Any:
        if len(self.rest) <= _DIRECT_NODES:
            return factorised(matrix)
        own = self.stiffness + sum(c.T @ (weigh @ c) for c in (self.here, self.there))
        return _TwoLevels(matrix, own, sparse.csr_array(
            sparse.block_diag([_coarser(lattice) for lattice in self.lattices])
        ))  # fmt: skip


@dataclass(frozen=True)
class _Tied:
    """The whole matrix, which multiplies every column of a flattened array.

    The tie of linear parts is left as a product: it would fill the matrix of a tile.
    """

    sparse: Any
    linear: Any
    weight: float
    shape: tuple[int, ...]

    def linear_part(self, u: Nodes) -> Nodes:
        return self.weight * (self.linear @ (self.linear.T @ u))

    def __matmul__(self, x: Flat) -> Flat:
        u = x.reshape(self.shape)
        return (self.sparse @ u + self.linear_part(u)).ravel()


class _TwoLevels:
    """Each tile by itself, and all tiles together with few nodes each.

    An additive Schwarz method: what tiles do to one another is smooth over a tile, and left to
    the second level.
    """

    def __init__(self, matrix: Any, own: Any, modes: Any) -> None:
        self._fine = factorised(own)
        self._modes = modes
        self._coarse = factorised(modes.T @ (matrix @ modes))

    def __call__(self, residual: Nodes) -> Nodes:
        return self._fine(residual) + self._modes @ self._coarse(self._modes.T @ residual)


def _bending(lattice: Lattice, half_px: float) -> Any:
    """The bending matrix of one component of one tile."""
    return assembled(bending_forms(lattice.stride, half_px), lattice.shape, 1)


def _interpolation(
    lattices: Sequence[Lattice],
    first: Int[np.ndarray, " _"],
    tile: Int[np.ndarray, " n"],
    at: Points,
) -> Any:
    """The matrix that takes node values of all tiles to values at points of some tile."""
    ndim = lattices[0].ndim
    origin, stride, shape = (
        np.array([getattr(lattice, name) for lattice in lattices])[tile]
        for name in ("origin", "stride", "shape")
    )
    index = np.clip((at - origin) / stride, 0, shape - 1)
    below = np.minimum(index.astype(np.int64), np.maximum(shape - 2, 0))
    share = index - below
    steps = np.ones_like(shape)
    for axis in reversed(range(ndim - 1)):
        steps[:, axis] = steps[:, axis + 1] * shape[:, axis + 1]
    columns, values = [], []
    for corner in itertools.product((0, 1), repeat=ndim):
        node = np.minimum(below + corner, shape - 1)
        columns.append(first[tile] + (node * steps).sum(axis=1))
        values.append(np.where(corner, share, 1 - share).prod(axis=1))
    rows = np.tile(np.arange(len(tile)), len(columns))
    entries = (np.concatenate(values), (rows, np.concatenate(columns)))
    return sparse.csr_array(sparse.coo_array(entries, shape=(len(tile), first[-1])))


def _linear(lattice: Lattice) -> Float[np.ndarray, "nodes d"]:
    """The linear functions on a tile, as orthonormal columns; 0 along an axis of one node."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in lattice.shape),
                       indexing="ij")  # fmt: skip
    columns = np.stack([axis.ravel() for axis in axes], axis=1)
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)


def _coarser(lattice: Lattice) -> Any:
    """Multilinear interpolation to the nodes of a tile from a few nodes, as a sparse matrix."""
    total: Any = sparse.identity(1)
    for n in lattice.shape:
        few = min(n, _COARSE_NODES)
        knots = np.linspace(0, n - 1, few)
        along = np.stack([np.interp(np.arange(n), knots, hat) for hat in np.eye(few)], axis=1)
        total = sparse.kron(total, along)
    return sparse.csr_array(total)


def _squared(left: Points) -> Flat:
    """Mean over the axes of the squared distance of each pair, px^2."""
    return (left**2).mean(axis=1)


def _scale(left: Points, weight: Flat, least: float) -> float:
    return axis_scale(_squared(left)[weight > 0], left.shape[1], least)
