"""The inverse of a map.

Each cell of the lattice is a multilinear patch. Which nodes of the result can lie in a patch is
read off its bounding box; where in the patch they lie is found by Newton's method, started from
its centre, so the inverse is exact at its nodes and needs no first guess. Cost is linear in cells
and nodes, and a cell's share of it depends on that cell alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_absolute, on_lattice
from warpbeam.kernels.maps.irregular import jacobian

Float64 = Float[np.ndarray, "..."]
Index = Int[np.ndarray, "..."]

_BATCH = 1 << 17  # candidates looked at together: a few arrays of them stay in the cache
_STEPS = 20  # Newton steps; four do in a patch that is not badly distorted
_CLOSE = 1e-9  # the last step, in cells
_RIM = 1e-6  # how far outside its cell, in cells, a solution may lie
_APART = 1e-3  # solutions this far apart, in strides, are two


@dataclass(frozen=True)
class _Cells:
    """Patches that may hold nodes of the result.

    Attributes:
        corners: images of the corners, `[d, (2,) 2, 2, cell]`, in nodes of the result.
        place: the index of the first corner of each, `[d, cell]`.
        folded: which are turned inside out somewhere.
        low: first node in the bounding box, `[d, cell]`.
        count: nodes in it, `[d, cell]`.
    """

    corners: Float64
    place: Index
    folded: Bool[np.ndarray, " cell"]
    low: Index
    count: Index


def invert(m: CoordinateMap, lattice: Lattice | None = None) -> CoordinateMap:
    """The map from B back to A.

    Args:
        m: a map or a batch, from A to B.
        lattice: nodes of the result, in B; those of `m` by default.

    Returns:
        A map in the dtype of `m`. NaN outside the image of the lattice, where a cell with an
        unknown corner leads, near a fold, and where several cells lead: what is not unique is
        not known. A map that mirrors space everywhere is inverted like any other.

    Raises:
        ValueError: the ranks differ, or an axis of `m` has a single node.
    """
    lattice = lattice or m.lattice
    if lattice.ndim != m.ndim:
        raise ValueError(f"a {m.ndim}-D map has no inverse on a {lattice.ndim}-D lattice")
    if min(m.lattice.shape) < 2:
        raise ValueError(f"an inverse needs two nodes on each axis, got {m.lattice.shape}")
    u = np.empty((m.ndim, *m.batch, *lattice.shape), m.u.dtype)
    for index in np.ndindex(m.batch):
        u[(slice(None), *index)] = _invert_one(m.section(*index), lattice)
    return on_lattice(u, lattice)


def _invert_one(m: CoordinateMap, lattice: Lattice) -> Float64:
    shape = (-1, *[1] * m.ndim)
    origin, stride = np.reshape(m.origin, shape), np.reshape(m.stride, shape)
    start, step = np.reshape(lattice.origin, shape), np.reshape(lattice.stride, shape)
    # index coordinates of both lattices keep the numbers small and the tolerances unitless
    index = np.full((m.ndim, int(np.prod(lattice.shape))), np.nan)
    twice = np.zeros(index.shape[1], bool)
    cells = _cells((m.absolute - start) / step, _determinant(m), lattice.shape)
    for cell, node in _candidates(cells):
        flat = np.ravel_multi_index(tuple(node), lattice.shape)
        bent = cells.folded[cell]
        twice[flat[bent]] = True
        cell, node, flat = cell[~bent], node[:, ~bent], flat[~bent]
        inside, local = _locate(cells.corners, cell, node)
        cell, flat = cell[inside], flat[inside]
        found = cells.place[:, cell] + local
        before = index[:, flat]
        index[:, flat] = found
        for other in (before, index[:, flat]):  # of an earlier batch, and of this one
            twice[flat[(np.abs(other - found) > _APART).any(axis=0)]] = True
    index[:, twice] = np.nan
    source = origin + index.reshape(m.ndim, *lattice.shape) * stride
    return source - lattice.nodes()


def _determinant(m: CoordinateMap) -> Float64:
    """The Jacobian determinant of each cell, its sign reversed where the whole map mirrors."""
    determinant = jacobian(m)
    if (determinant[np.isfinite(determinant)] >= 0).any():
        return determinant
    mirror = m.absolute
    mirror[0] *= -1
    return jacobian(from_absolute(mirror, m.lattice))


def _cells(image: Float64, determinant: Float64, shape: tuple[int, ...]) -> _Cells:
    """The patches whose bounding boxes hold a node of the result."""
    ndim = len(image)
    count = determinant.shape
    corners = np.stack([
        image[(slice(None), *map(slice, corner, np.add(corner, count)))].reshape(ndim, -1)
        for corner in itertools.product((0, 1), repeat=ndim)
    ], axis=1)  # fmt: skip
    low, high = corners.min(axis=1), corners.max(axis=1)
    last = np.array(shape)[:, None] - 1
    with np.errstate(invalid="ignore"):
        meets = ((high >= -_RIM) & (low <= last + _RIM)).all(axis=0)  # False for NaN
    kept = np.flatnonzero(meets)
    first = np.ceil(np.maximum(low[:, kept] - _RIM, 0)).astype(np.int64)
    final = np.floor(np.minimum(high[:, kept] + _RIM, last)).astype(np.int64)
    held = (final >= first).all(axis=0)
    kept, first, final = kept[held], first[:, held], final[:, held]
    folded = determinant.ravel()[kept] <= 0
    place = np.stack(np.unravel_index(kept, count))
    return _Cells(
        corners[:, :, kept].reshape(ndim, *[2] * ndim, -1), place, folded, first, final - first + 1
    )


def _candidates(cells: _Cells) -> Iterator[tuple[Index, Index]]:
    """Pairs of a patch and a node `[d, pair]` in its bounding box, in batches, patches in order."""
    pairs = cells.count.prod(axis=0)
    ends = np.cumsum(pairs)
    begin = 0
    while begin < len(pairs):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + _BATCH, side="right")), begin + 1)
        cell = np.repeat(np.arange(begin, end), pairs[begin:end])
        rank = np.arange(len(cell)) - np.repeat(
            ends[begin:end] - pairs[begin:end] - done, pairs[begin:end]
        )
        node = np.empty((len(cells.count), len(cell)), np.int64)
        for axis in reversed(range(len(node))):
            rank, node[axis] = np.divmod(rank, cells.count[axis, cell])
        yield cell, node + cells.low[:, cell]
        begin = end


def _locate(corners: Float64, cell: Index, node: Index) -> tuple[Index, Float64]:
    """Which pairs are solutions, and where in the unit cell they lie, `[d, solution]`."""
    ndim = len(node)
    terms = corners[..., cell]
    for axis in range(1, ndim + 1):  # from corner values to the coefficients of monomials
        low, high = _end(terms, axis, 0), _end(terms, axis, 1)
        terms = np.stack([low, high - low], axis)
    place = np.full(node.shape, 0.5)
    pair = np.arange(len(cell))
    accepted, places = [], []
    for step in range(_STEPS):
        value, slopes = _patch(terms, place)
        with np.errstate(divide="ignore", invalid="ignore"):
            move = _solve(slopes, node[:, pair] - value)
        place = place + move
        size = np.abs(move).max(axis=0)
        done = size < _CLOSE
        good = done & (np.abs(place - 0.5) <= 0.5 + _RIM).all(axis=0)
        accepted.append(pair[good])
        places.append(place[:, good])
        alive = ~done & np.isfinite(size)
        if step:  # one step from the centre may overshoot, two from a wrong cell do not return
            alive &= (np.abs(place - 0.5) < 1.5).all(axis=0)
        if not alive.any():
            break
        place, pair, terms = place[:, alive], pair[alive], terms[..., alive]
    found = np.concatenate(accepted)
    order = np.argsort(found)
    return found[order], np.concatenate(places, axis=1)[:, order]


def _patch(terms: Float64, place: Float64) -> tuple[Float64, list[Float64]]:
    """Value `[d, pair]` and derivatives, one `[d, pair]` per axis, of multilinear patches."""
    ndim = len(place)
    value = terms
    for axis in reversed(range(ndim)):
        value = _end(value, axis + 1, 0) + _end(value, axis + 1, 1) * place[axis]
    slopes = []
    for k in range(ndim):
        slope = _end(terms, k + 1, 1)
        for axis in reversed([i for i in range(ndim) if i != k]):
            at = axis + 1 if axis < k else axis
            slope = _end(slope, at, 0) + _end(slope, at, 1) * place[axis]
        slopes.append(slope)
    return value, slopes


def _end(values: Float64, axis: int, which: int) -> Float64:
    return values[(slice(None),) * axis + (which,)]


def _solve(columns: list[Float64], right: Float64) -> Float64:
    """Cramer's rule for many small systems given by their columns `[d, pair]`."""
    if len(columns) == 2:
        (a, c), (b, d) = columns
        e, f = right
        return np.stack([d * e - b * f, a * f - c * e]) / (a * d - b * c)
    x, y, z = columns
    yz = np.cross(y, z, axis=0)
    determinant = (x * yz).sum(axis=0)
    parts = [yz, np.cross(z, x, axis=0), np.cross(x, y, axis=0)]
    return np.stack([(part * right).sum(axis=0) for part in parts]) / determinant
