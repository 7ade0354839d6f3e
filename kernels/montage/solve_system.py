"""The normal equations of a mosaic: from correspondences to one sparse block system.

A correspondence says that point `p` of tile a and point `q` of tile b are one place:
`T_a(p) - T_b(q) = r`, which costs `r' W r`. A tile's state is `T(p) = M (p - c) + u`, with the
mean `c` of its points as the centre. Each step solves for a small motion of every tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from warpbeam.kernels.montage.solve_motion import Motion

Index = Int[np.ndarray, " m"]
Points = Float[np.ndarray, "m d"]

_PART = 1 << 17  # correspondences whose dense blocks are in memory together
_DAMPING = 1e-9  # against the mean diagonal: what no link determines stays where it is


@dataclass(frozen=True)
class State:
    """Where the tiles are: `T(p) = linear (p - centre) + shift`, one row per tile."""

    linear: Float[np.ndarray, "n d d"]
    centre: Float[np.ndarray, "n d"]
    shift: Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class System:
    """Correspondences sorted by their tiles `a < b`, and what follows from that order alone.

    `link` numbers the link of each correspondence from 0; `stage` is where the tiles start.
    """

    a: Index
    b: Index
    at_a: Points
    at_b: Points
    information: Float[np.ndarray, "m d d"]
    link: Index
    stage: State
    motion: Motion

    @cached_property
    def first(self) -> Int[np.ndarray, " pairs"]:
        """The first correspondence of each pair of tiles."""
        new = (np.diff(self.a, prepend=-1) != 0) | (np.diff(self.b, prepend=-1) != 0)
        return np.flatnonzero(new)

    @cached_property
    def pairs(self) -> Int[np.ndarray, "pairs 2"]:
        return np.stack([self.a[self.first], self.b[self.first]], axis=1)

    def residual(self, state: State) -> Points:
        """`T_a(p) - T_b(q)` of each correspondence, px."""
        lever_a, lever_b = self._levers(state, slice(None))
        return lever_a - lever_b + state.shift[self.a] - state.shift[self.b]

    def moved(self, state: State, step: Float[np.ndarray, "n k"]) -> State:
        """The tiles after a small motion of each."""
        shift = state.shift + step[:, -self.motion.ndim :]
        return replace(state, linear=self.motion.moved(state.linear, step), shift=shift)

    @cached_property
    def cells(self) -> Int[np.ndarray, "n d"]:
        """The lattice cell of each tile; the lattice is as wide as neighbours are apart."""
        where = self.stage.shift
        apart = np.abs(where[self.pairs[:, 0]] - where[self.pairs[:, 1]])
        along = apart > apart.max(axis=1, initial=0.0, keepdims=True) / 2
        pitch = [
            np.median(far[on]) if on.any() else np.inf
            for far, on in zip(apart.T, along.T, strict=True)
        ]
        return np.round((where - where.min(axis=0)) / pitch).astype(np.int64)

    def normal_equations(
        self,
        state: State,
        residual: Points,
        weight: Float[np.ndarray, " m"],
        *,
        spring: Float[np.ndarray, " pairs"],
        hold: float,
    ) -> tuple[Any, Float[np.ndarray, " nk"]]:
        """The matrix (`bsr_array`, `k x k` blocks) and the right side of one Gauss-Newton step.

        Args:
            state: where the tiles are now.
            residual: of each correspondence in that state.
            weight: of each correspondence, beside its information.
            spring: stiffness between the two tiles of each pair towards their stage distance.
            hold: stiffness of each linear part towards the stage's.
        """
        parts = [self._terms(state, residual, weight, part) for part in self._parts]
        blocks, pulls = (
            [np.concatenate(runs) for runs in zip(*terms, strict=True)]
            for terms in zip(*parts, strict=True)
        )
        stretch = self._stretch(state) * spring[:, None]
        for block in blocks:
            _diagonals(block)[:, -self.motion.ndim :] += spring[:, None]
        for pulled in pulls:
            pulled[:, -self.motion.ndim :] += stretch
        aa, ab, bb = blocks * (3 // len(blocks))
        pull_a, pull_b = pulls * (2 // len(pulls))
        n, k = len(state.shift), self.motion.size
        on_a, on_b = self._ends
        diagonal = (on_a @ aa.reshape(-1, k * k) + on_b @ bb.reshape(-1, k * k)).reshape(n, k, k)
        pull = on_a @ pull_a - on_b @ pull_b
        damping = _DAMPING * (float(_diagonals(diagonal).mean()) or 1.0)
        if not self.motion.linear:
            self._add_hold(state, hold, diagonal, pull)
        _diagonals(diagonal)[:] += damping
        starts, columns, (place_ab, place_ba, place_aa) = self._pattern
        data = np.empty((len(columns), k, k))
        data[place_ab] = -ab
        data[place_ba] = -ab.transpose(0, 2, 1)
        data[place_aa] = diagonal
        matrix = sparse.bsr_array((data, columns, starts), shape=(n * k, n * k))
        return matrix, -pull.ravel()

    def _levers(self, state: State, rows: slice) -> tuple[Points, Points]:
        """The points as seen from their tile's centre, turned into the world."""
        if self.motion.linear:
            return self._stage_levers[0][rows], self._stage_levers[1][rows]
        return self._turned(state, rows)

    @cached_property
    def _stage_levers(self) -> tuple[Points, Points]:
        return self._turned(self.stage, slice(None))

    def _turned(self, state: State, rows: slice) -> tuple[Points, Points]:
        a, b = self.a[rows], self.b[rows]
        return (
            np.einsum("mij,mj->mi", state.linear[a], self.at_a[rows] - state.centre[a]),
            np.einsum("mij,mj->mi", state.linear[b], self.at_b[rows] - state.centre[b]),
        )

    @cached_property
    def _parts(self) -> list[tuple[slice, np.ndarray]]:
        """Correspondences in runs of about `_PART`, and where the pairs of each run begin."""
        cuts = np.unique(np.searchsorted(self.first, np.arange(0, len(self.a), _PART)))
        runs = np.split(self.first, cuts[1:])
        ends = [*(run[0] for run in runs[1:]), len(self.a)]
        return [(slice(r[0], end), r - r[0]) for r, end in zip(runs, ends, strict=True)]

    def _terms(
        self, state: State, residual: Points, weight: np.ndarray, part: tuple[slice, np.ndarray]
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Of each pair: the blocks aa, ab, bb, and the pulls on a and, reversed, on b.

        One block and one pull where only shifts are free: they are all the same.
        """
        rows, first = part
        information = self.information[rows] * weight[rows, None, None]
        force = np.einsum("mij,mj->mi", information, residual[rows])
        if self.motion.linear:
            return (_sums(information, first),), (_sums(force, first),)
        at_a, at_b = (self.motion.jacobian(lever) for lever in self._levers(state, rows))
        from_a, right = at_a.transpose(0, 2, 1), information @ at_b
        blocks = from_a @ (information @ at_a), from_a @ right, at_b.transpose(0, 2, 1) @ right
        pulls = (np.einsum("mik,mi->mk", at, force) for at in (at_a, at_b))
        return tuple(_sums(b, first) for b in blocks), tuple(_sums(p, first) for p in pulls)

    def _stretch(self, state: State) -> Float[np.ndarray, "pairs d"]:
        """By how much more than on the stage the tiles of each pair are apart."""
        drift = state.shift - self.stage.shift
        return drift[self.pairs[:, 0]] - drift[self.pairs[:, 1]]

    def _add_hold(self, state: State, hold: float, diagonal: np.ndarray, pull: np.ndarray) -> None:
        """The cost `hold |radius (M S^-1 - 1)|^2`, for the stage's linear part `S`."""
        generators = self.motion.generators
        turns = slice(len(generators))
        ratio = state.linear @ np.linalg.inv(self.stage.linear)
        turned = np.einsum("qij,njk->nqik", generators, ratio)
        away = ratio - np.eye(self.motion.ndim)
        _diagonals(diagonal)[:, turns] += hold * (generators**2).sum(axis=(1, 2))
        pull[:, turns] += hold * self.motion.radius * np.einsum("nqik,nik->nq", turned, away)

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Row starts and columns of the blocks, and where the blocks ab, ba and aa lie."""
        (a, b), diagonal = self.pairs.T, np.arange(len(self.stage.shift))
        rows, columns = np.concatenate([a, b, diagonal]), np.concatenate([b, a, diagonal])
        order = np.argsort(rows * len(diagonal) + columns, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        starts = np.searchsorted(rows[order], np.arange(len(diagonal) + 1))
        places = np.split(place, [len(a), 2 * len(a)])
        return starts.astype(np.int32), columns[order].astype(np.int32), places

    @cached_property
    def _ends(self) -> tuple[Any, ...]:
        """Matrices that add up the pairs of which a tile is the first, and the second."""
        shape = (len(self.stage.shift), len(self.pairs))
        ones, pair = np.ones(shape[1]), np.arange(shape[1])
        return tuple(sparse.csr_array((ones, (tile, pair)), shape=shape) for tile in self.pairs.T)


def _sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The sum of each run of rows; `first` says where the runs begin."""
    return values if len(first) == len(values) else np.add.reduceat(values, first)


def _diagonals(blocks: Float[np.ndarray, "m k k"]) -> Float[np.ndarray, "m k"]:
    """A view of the diagonal of each block, to be written to."""
    return np.einsum("mii->mi", blocks)
