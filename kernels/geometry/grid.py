"""A volume cut into equal blocks: from block index to box and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warpbeam.kernels.geometry.box import Box


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of `block` voxels over a volume of `shape`, the last ones cut short.

    Chunks, shards and render cells are all such grids; they are anchored at voxel 0.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.block):
            raise ValueError(f"shape {self.shape} and block {self.block} differ in rank")
        if min(self.block, default=1) < 1:
            raise ValueError(f"blocks need at least one voxel on each axis, got {self.block}")

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(math.ceil(n / b) for n, b in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def box(self, index: Sequence[int]) -> Box:
        """The voxels of one block, without halo."""
        start = tuple(i * b for i, b in zip(index, self.block, strict=True))
        return Box.of_shape(self.block, start) & Box.of_shape(self.shape)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Every block, in C order."""
        return itertools.product(*map(range, self.counts))

    def touching(self, box: Box) -> Iterator[tuple[int, ...]]:
        """The blocks that share a voxel with `box`, in C order; computed, never scanned."""
        inside = box & Box.of_shape(self.shape)
        if not inside:
            return iter(())
        return itertools.product(
            *(
                range(a // n, (b - 1) // n + 1)
                for a, b, n in zip(inside.start, inside.stop, self.block, strict=True)
            )
        )
