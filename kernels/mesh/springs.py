r"""Hookean springs between the nodes of a regular mesh, in the plane or in space.

    o --- o --- o        -  |   k          nearest neighbours
    | \ / | \ / |        \  /   k/sqrt(2)  diagonals
    |  X  |  X  |
    | / \ | / \ |        in 3-D also the four diagonals of a cube, k/sqrt(3): 13 directions
    o --- o --- o

Every spring is at rest where the lattice is regular: `E = k/2 (|d| - l0)^2` for the vector `d`
between its ends. The constant falls as `k l_x / l0`, which keeps the elasticity of the sheet.
Whole rotations cost nothing. A mirrored mesh costs nothing either: `ordered` springs give up
exact invariance once a spring has turned by more than 90 degrees, so that only the unfolded
minimum is left. Components and strides are in zyx order; offsets and lengths in px.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.mesh.lattice import Form, existing, strips, window

Field = Float[np.ndarray, "c *grid"]
_TINY = 1e-24  # px^2: a spring without length pushes nowhere


@dataclass(frozen=True)
class Link:
    """A family of parallel springs.

    Attributes:
        low, high: offsets >= 0 of the two ends.
        unit: direction at rest, from `low` to `high`.
        length: at rest, px.
        stiffness: energy per squared px of stretch, twice.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    unit: tuple[float, ...]
    length: float
    stiffness: float

    def form(self) -> Form:
        """The stretch of the spring for small offsets."""
        largest = max(map(abs, self.unit))
        entries = tuple(
            (c, offset, sign * n / largest)
            for c, n in enumerate(self.unit)
            if n
            for offset, sign in ((self.high, 1.0), (self.low, -1.0))
        )
        axes = tuple(c for c, n in enumerate(self.unit) if n)
        return Form(entries, self.stiffness * largest**2, axes, order=1)


def links(stride: Sequence[float], stiffness: float) -> tuple[Link, ...]:
    """All families of springs of a lattice: 4 in 2-D, 13 in 3-D.

    Args:
        stride: px between nodes on each axis.
        stiffness: of the springs along x.
    """
    spans = np.asarray(stride, np.float64)
    found = []
    for direction in itertools.product((-1, 0, 1), repeat=len(spans)):
        if direction <= (0,) * len(spans):
            continue
        span = np.multiply(direction, spans)
        length = float(np.sqrt((span**2).sum()))
        low = tuple(int(step < 0) for step in direction)
        high = tuple(int(step > 0) for step in direction)
        unit = tuple(float(step) for step in span / length)
        found.append(Link(low, high, unit, length, stiffness * spans[-1] / length))
    return tuple(found)


def stretch_energy(vector: Sequence[Any], link: Link, ordered: bool, xp: Any) -> Any:
    """The energy of each spring of a family, for NumPy or JAX arrays (`xp` is the library).

    Args:
        vector: components of the vector between the ends, px.
        ordered: see the top of this file; there `|d|` becomes `2 |p| - |d|`, with the part `p`
            of `d` across the rest direction, once `d` points backwards. Value and force are
            continuous, and no minimum is left on that side.
    """
    squared = sum(v * v for v in vector)
    length = xp.sqrt(xp.maximum(squared, _TINY))
    energy = 0.5 * (length - link.length) ** 2
    if ordered:
        along = sum(v * n for v, n in zip(vector, link.unit, strict=True))
        across = xp.sqrt(xp.maximum(squared - along * along, _TINY))
        energy = energy + xp.where(along < 0, 2 * link.length * (length - across), 0.0)
    return link.stiffness * energy


@dataclass(frozen=True)
class Expansion:
    """Energy, its gradient, and the positive part of its curvature at one state.

    `curvature` has, of each family, the upper triangle of the matrix of each spring.
    """

    energy: float
    gradient: Field
    curvature: tuple[Float[np.ndarray, "..."], ...]


class Springs:
    """The springs of one mesh.

    Args:
        links: families, see `links`.
        shape: nodes on each axis.
        ordered: see `stretch_energy`.
        active: nodes that exist; None for all. Springs end only at those.
    """

    def __init__(
        self,
        links: Sequence[Link],
        shape: Sequence[int],
        *,
        ordered: bool = False,
        active: Bool[np.ndarray, "*grid"] | None = None,
    ) -> None:
        forms = [link.form() for link in links]
        self._places = [form.places(shape) for form in forms]
        kept = [i for i, places in enumerate(self._places) if math.prod(places)]
        self.links = tuple(links[i] for i in kept)
        self._places = [self._places[i] for i in kept]
        self._ordered = ordered
        self._shape = tuple(shape)
        self.exists = None if active is None else existing([forms[i] for i in kept], active)

    def energy(self, offsets: Field) -> float:
        """Of all springs."""
        total = 0.0
        for rows in strips(self._shape):
            for family, link in enumerate(self.links):
                vector = self._vector(family, offsets, rows)
                energy = stretch_energy(vector, link, self._ordered, np)
                if self.exists is not None:
                    energy *= self.exists[family][slice(*rows)]
                total += float(energy.sum())
        return total

    def expand(self, offsets: Field) -> Expansion:
        """The quadratic model of the energy around a state.

        A compressed spring resists bending sideways less than nothing; that part of its
        curvature is left out, which keeps the whole positive and every step downhill.
        """
        ndim = len(self._shape)
        pairs = list(itertools.combinations_with_replacement(range(ndim), 2))
        gradient = np.zeros_like(offsets)
        curvature = [np.empty((len(pairs), *places)) for places in self._places]
        for rows in strips(self._shape):
            for family, link in enumerate(self.links):
                vector = self._vector(family, offsets, rows)
                force, sideways, unit = _bend(vector, link, self._ordered)
                if self.exists is not None:
                    there = self.exists[family][slice(*rows)]
                    sideways, force = sideways * there, [f * there for f in force]
                    lengthways = link.stiffness * there - sideways
                else:
                    lengthways = link.stiffness - sideways
                part = curvature[family][:, slice(*rows)]
                for row, (i, j) in enumerate(pairs):
                    part[row] = lengthways * unit[i] * unit[j]
                    if i == j:
                        part[row] += sideways
                self._pull(family, gradient, force, rows)
        return Expansion(self.energy(offsets), gradient, tuple(curvature))

    def add_product(self, expansion: Expansion, x: Field, out: Field) -> None:
        """Adds the curvature times `x` to `out`."""
        ndim = len(self._shape)
        pairs = list(itertools.combinations_with_replacement(range(ndim), 2))
        number = {pair: row for row, pair in enumerate(pairs)}
        for rows in strips(self._shape):
            for family in range(len(self.links)):
                change = self._difference(family, x, rows)
                stiff = expansion.curvature[family][:, slice(*rows)]
                force = []
                for i in range(ndim):
                    total = stiff[number[min(i, 0), max(i, 0)]] * change[0]
                    for j in range(1, ndim):
                        total += stiff[number[min(i, j), max(i, j)]] * change[j]
                    force.append(total)
                self._pull(family, out, force, rows)

    def _difference(self, family: int, x: Field, rows: tuple[int, int]) -> list[np.ndarray]:
        link, places = self.links[family], self._places[family]
        high, low = window(link.high, places, rows), window(link.low, places, rows)
        return [component[high] - component[low] for component in x]

    def _vector(self, family: int, offsets: Field, rows: tuple[int, int]) -> list[np.ndarray]:
        link = self.links[family]
        change = self._difference(family, offsets, rows)
        return [d + link.length * n for d, n in zip(change, link.unit, strict=True)]

    def _pull(
        self, family: int, out: Field, force: Sequence[np.ndarray], rows: tuple[int, int]
    ) -> None:
        """Adds what a family's derivative adds at both its ends."""
        link, places = self.links[family], self._places[family]
        high, low = window(link.high, places, rows), window(link.low, places, rows)
        for component, pull in zip(out, force, strict=True):
            component[high] += pull
            component[low] -= pull


def _bend(
    vector: Sequence[np.ndarray], link: Link, ordered: bool
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """The derivative by the vector, the curvature across it (not below 0), and its direction."""
    squared = sum(v * v for v in vector)
    length = np.sqrt(np.maximum(squared, _TINY))
    unit = [v / length for v in vector]
    ratio = link.length / length
    sideways = link.stiffness * np.maximum(0.0, 1 - ratio)
    force = [link.stiffness * (1 - ratio) * v for v in vector]
    if ordered:
        along = sum(v * n for v, n in zip(vector, link.unit, strict=True))
        back = np.asarray(along < 0)
        if back.any():
            across = [v - along * n for v, n in zip(vector, link.unit, strict=True)]
            size = np.sqrt(np.maximum(sum(v * v for v in across), _TINY))
            for c, (v, p) in enumerate(zip(vector, across, strict=True)):
                turned = v * (1 + ratio) - 2 * link.length * p / size
                force[c] = np.where(back, link.stiffness * turned, force[c])
            sideways = np.where(back, link.stiffness * (1 + ratio), sideways)
    return force, sideways, unit
