"""Axis-aligned boxes of voxels.

Convention, here and everywhere: tuples are in array order (zyx or yx), `start` is
inside the box, `stop` is outside, and the centre of a voxel sits at its integer index.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Box:
    """The voxels `start <= index < stop`; empty where `stop <= start` on any axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def of_shape(cls, shape: Sequence[int], start: Sequence[int] | None = None) -> Box:
        """The box of `shape` whose first voxel is `start` (the origin by default)."""
        first = tuple(start) if start is not None else (0,) * len(shape)
        return cls(first, tuple(a + n for a, n in zip(first, shape, strict=True)))

    @property
    def ndim(self) -> int:
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple([b - a if b > a else 0 for a, b in zip(self.start, self.stop, strict=True)])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(map(slice, self.start, self.stop))

    def __bool__(self) -> bool:
        return all(map(operator.lt, self.start, self.stop))

    def __and__(self, other: Box) -> Box:
        """The common part; an empty box (falsy) where there is none."""
        start = tuple(map(max, self.start, other.start))
        return Box(start, tuple(map(max, start, map(min, self.stop, other.stop))))

    def __or__(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(tuple(map(min, self.start, other.start)), tuple(map(max, self.stop, other.stop)))

    def meets(self, other: Box) -> bool:
        """Whether they share a voxel."""
        return bool(self & other)

    def contains(self, other: Box) -> bool:
        return (self & other) == other

    def shift(self, by: Sequence[int]) -> Box:
        return Box(
            tuple(map(operator.add, self.start, by)), tuple(map(operator.add, self.stop, by))
        )

    def pad(self, halo: Sequence[int]) -> Box:
        return Box(
            tuple(map(operator.sub, self.start, halo)), tuple(map(operator.add, self.stop, halo))
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same voxels counted from `origin`."""
        return self.shift([-o for o in origin])

    def slices_in(self, outer: Box) -> tuple[slice, ...]:
        """Where these voxels lie in an array that holds `outer`."""
        return tuple(
            slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, outer.start, strict=True)
        )
