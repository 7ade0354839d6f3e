"""Axis-aligned boxes of voxels.

Convention, here and everywhere: tuples are in array order (zyx or yx), `start` is
inside the box, `stop` is outside, and the centre of a voxel sits at its integer index.
"""

from __future__ import annotations

import math
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
        return tuple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __bool__(self) -> bool:
        return self.size > 0

    def __and__(self, other: Box) -> Box:
        """The common part; an empty box (falsy) where there is none."""
        start = tuple(map(max, self.start, other.start))
        return Box(start, tuple(map(max, start, map(min, self.stop, other.stop))))

    def __or__(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(tuple(map(min, self.start, other.start)), tuple(map(max, self.stop, other.stop)))

    def meets(self, other: Box) -> bool:
        """Whether they share a voxel."""
        return all(
            max(a, c) < min(b, d)
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def contains(self, other: Box) -> bool:
        return (self & other) == other

    def shift(self, by: Sequence[int]) -> Box:
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def pad(self, halo: Sequence[int]) -> Box:
        return Box(
            tuple(a - h for a, h in zip(self.start, halo, strict=True)),
            tuple(b + h for b, h in zip(self.stop, halo, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same voxels counted from `origin`."""
        return self.shift([-o for o in origin])

    def slices_in(self, outer: Box) -> tuple[slice, ...]:
        """Where these voxels lie in an array that holds `outer`."""
        return tuple(
            slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, outer.start, strict=True)
        )
