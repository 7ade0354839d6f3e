"""How a volume is cut into blocks and regions, and where their files lie.

A block is a shard of the result. Regions are blocks of blocks: those of level k hold `fan_out**k`
blocks along each axis, and that of the last level is the whole volume. A block's labels are stored
with its halo, in a slot of its own of one array, so that each is written by one worker and no part
of the halo is lost:

    volume   |  block 0  |  block 1  |          array   | block 0 + halo .|. halo + block 1 .|
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.segment.blocks import global_ids
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.storage import store, tables, volume
from warpbeam.transforms.storage.ledger import FOLDER, key_name
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.volume_spec import VolumeSpec

Index = tuple[int, ...]
Ids = UInt64[np.ndarray, "n"]


@dataclass(frozen=True)
class BlockFrame:
    """All sizes are zyx.

    Attributes:
        shape: of the volume.
        block: voxels of a block; the last ones are cut short.
        chunk: voxels of the stored labels that are read at once.
        halo: voxels around a block whose labels are kept too.
        fan_out: regions along an axis that one worker joins.
        reach: blocks along z that a link may lead across; objects that touch lead to the next.
    """

    shape: Index
    block: Index
    chunk: Index
    halo: Index
    fan_out: int
    reach: int = 1

    @functools.cached_property
    def grid(self) -> BlockGrid:
        return BlockGrid(self.shape, self.block)

    @functools.cached_property
    def depth(self) -> int:
        """The level whose only region is the volume; at least 1."""
        level = 1
        while self.fan_out**level < max(self.grid.counts):
            level += 1
        return level

    def regions(self, level: int) -> BlockGrid:
        """The regions of a level; a box of this grid is in blocks."""
        return BlockGrid(self.grid.counts, (self.fan_out**level,) * 3)

    def children(self, level: int, index: Index) -> Iterator[Index]:
        """The regions of the level below (blocks, for level 1) that make up one."""
        below = BlockGrid(self.regions(level - 1).counts, (self.fan_out,) * 3)
        return indices_in(below.box(index))

    def parent(self, index: Index) -> Index:
        return tuple(i // self.fan_out for i in index)

    def number(self, index: Index) -> int:
        """Of a block, in C order."""
        return int(np.ravel_multi_index(index, self.grid.counts))

    def child_numbers(self, level: int, ids: UInt64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The number, in C order, of the region of a level that each object's block lies in."""
        block = np.unravel_index((ids >> np.uint64(32)).astype(np.int64), self.grid.counts)
        region = tuple(i // self.fan_out**level for i in block)
        return np.ravel_multi_index(region, self.regions(level).counts)

    def read_box(self, index: Index) -> Box:
        """A block with its halo, cut at the border of the volume."""
        return self.grid.box(index).pad(self.halo) & Box.of_shape(self.shape)

    def slot(self, index: Index, box: Box) -> Box:
        """Where a block's labels of `box`, voxels of the volume, lie in the array (tczyx)."""
        start = self.grid.box(index).start
        rows = zip(index, self._slot, self.halo, start, strict=True)
        moved = box.shift([i * n + h - a for i, n, h, a in rows])
        return Box((0, 0, *moved.start), (1, 1, *moved.stop))

    def whole_slot(self, index: Index) -> Box:
        """All of a block's place in the array."""
        zyx = Box.of_shape(self._slot, [i * n for i, n in zip(index, self._slot, strict=True)])
        return Box((0, 0, *zyx.start), (1, 1, *zyx.stop))

    @property
    def _slot(self) -> Index:
        rows = zip(self.block, self.halo, self.chunk, strict=True)
        return tuple(math.ceil((b + 2 * h) / c) * c for b, h, c in rows)

    def labels_spec(self, run: RunFolder) -> VolumeSpec:
        """The array of all blocks' own labels."""
        shape = tuple(c * n for c, n in zip(self.grid.counts, self._slot, strict=True))
        return VolumeSpec(
            store.join(run.uri, FOLDER, "blocks.zarr"), (1, 1, *shape), "uint32",
            (1, 1, *self.chunk), (1, 1, *self._slot),
        )  # fmt: skip

    def labels(self, run: RunFolder) -> volume.Level:
        """The array of all blocks' own labels, open."""
        return volume.Volume(self.labels_spec(run)).level(0)

    def local(self, run: RunFolder, index: Index, box: Box) -> np.ndarray[Any, Any]:
        """A block's own labels in a box of it and its halo."""
        found: np.ndarray[Any, Any] = self.labels(run).read(self.slot(index, box))[0, 0]
        return found

    def ids(self, run: RunFolder, index: Index, box: Box) -> np.ndarray[Any, Any]:
        """The same as ids that no other block has."""
        return global_ids(self.local(run, index, box), self.number(index))


def indices_in(box: Box) -> Iterator[Index]:
    """Every index in a box, in C order."""
    return itertools.product(*map(range, box.start, box.stop))


def table_uri(run: RunFolder, kind: str, level: int, index: Index) -> str:
    """A table of one region, an Arrow file: `traits` and `edges` of a block, `open` pieces and
    their `open_edges`, the `merged` table, `finished` pieces, `final` ids, and `objects`; where
    pieces are joined, `contacts`, the `forest` of what is one, `surfaces`, and `roots`."""
    return store.join(run.uri, FOLDER, "regions", kind, f"{key_name((level, index))}.arrow")


def hand_down(
    run: RunFolder, frame: BlockFrame, key: RegionKey, kind: str, columns: Mapping[str, Ids]
) -> int:
    """A table for each region of the level below in one: the rows whose ids, in the first column,
    lie in it. Returns the bytes written."""
    below, written = key.level - 1, 0
    counts = frame.regions(below).counts
    owner = frame.child_numbers(below, next(iter(columns.values())))
    for child in frame.children(key.level, key.region):
        mine = owner == np.ravel_multi_index(child, counts)
        part = {name: values[mine] for name, values in columns.items()}
        written += tables.write_columns(table_uri(run, kind, below, child), part)
    return written


def level_uri(run: RunFolder) -> str:
    """The grey value that parts objects from the rest."""
    return store.join(run.uri, FOLDER, "threshold.json")
