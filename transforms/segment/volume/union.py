"""The blocks' labels as objects of the whole volume, region by region: up, and down again.

Up (`union_1` to `union_n`): each region joins the pieces of the regions in it, keeps those that
are finished, and hands on the others. Down (`settle_n` to `settle_1`): each region says what
became of the pieces of the regions in it, until every block knows the ids of its own labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.pieces import Merged, Pieces, block_pieces, merge_pieces, settled
from warpbeam.kernels.segment.traits import joined
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.segment.volume.frame import (
    BlockFrame,
    Index,
    hand_down,
    indices_in,
    table_uri,
)
from warpbeam.transforms.segment.volume.label import traits_of, write_traits
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


@dataclass(frozen=True)
class KeepSettings:
    """Which objects stay, by the size of the whole object.

    Attributes:
        smallest, largest: voxels, strict bounds; None for no upper one.
    """

    smallest: int
    largest: int | None

    def kept(self, pieces: Pieces) -> np.ndarray[Any, Any]:
        voxels = pieces.traits.voxels
        few = voxels < self.largest if self.largest is not None else True
        return np.asarray((voxels > self.smallest) & few)


def list_regions(frame: BlockFrame, level: int, below: Ledger) -> Iterator[Unit]:
    """A unit per region of a level. Payload: the marks of what it reads of the level below: the
    regions in it, and for the first level also the blocks beside it, whose edges reach into it."""
    marks = below.marks()
    for index in frame.regions(level).indices():
        read = _blocks_around(frame, index) if level == 1 else frame.children(level, index)
        found = [[child, mark] for child in read if (mark := marks.get((level - 1, child)))]
        if found:
            yield RegionKey(level, index), found


def _blocks_around(frame: BlockFrame, index: Index) -> Iterator[Index]:
    inside = frame.regions(1).box(index)
    return indices_in(inside.pad((frame.reach, 1, 1)) & Box.of_shape(frame.grid.counts))


class JoinRegions:
    """Work of the stages `union_<level>`: the pieces of one region."""

    def __init__(self, run: RunFolder, frame: BlockFrame, keep: KeepSettings) -> None:
        self._run, self._frame, self._keep = run, frame, keep

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        children = [tuple(child) for child, _ in payload]
        if key.level == 1:
            parts = [self._of_blocks(key, children)]
        else:
            parts = [self._of_region(key.level - 1, child) for child in children]
        merged = merge_pieces(parts, whole=key.level == self._frame.depth)
        written = self._write(key, merged)
        kept = self._keep.kept(merged.finished)
        voxels = merged.finished.traits.voxels[kept]
        return {
            "bytes_written": written,
            "kept": int(kept.sum()),
            "left_out": int((~kept).sum()),
            "open": len(merged.open.ids),
            "voxels": int(voxels.sum()),
            "largest": int(voxels.max(initial=0)),
        }

    def _of_blocks(self, key: RegionKey, blocks: list[Index]) -> Pieces:
        ids, traits, edges = [], [], [np.zeros((0, 2), np.uint64)]
        inside = self._frame.regions(1).box(key.region)
        for block in blocks:
            found = tables.read_columns(table_uri(self._run, "edges", 0, block))
            edges.append(np.stack([found["a"], found["b"]], axis=1))
            if inside.contains(Box.of_shape((1, 1, 1), block)):
                own = traits_of(tables.read_columns(table_uri(self._run, "traits", 0, block)))
                number = np.uint64(self._frame.number(block) << 32)
                ids.append(number + np.arange(1, len(own.voxels) + 1, dtype=np.uint64))
                traits.append(own)
        return block_pieces(np.concatenate(ids), joined(traits), np.concatenate(edges))

    def _of_region(self, level: int, index: Index) -> Pieces:
        open_, edges = (
            tables.read_columns(table_uri(self._run, kind, level, index))
            for kind in ("open", "open_edges")
        )
        ends = np.stack([edges[name] for name in ("own", "other", "piece")], axis=1)
        return Pieces(open_["id"], traits_of(open_), ends)

    def _write(self, key: RegionKey, merged: Merged) -> int:
        def uri(kind: str) -> str:
            return table_uri(self._run, kind, key.level, key.region)

        written = tables.write_columns(
            uri("merged"), {"part": merged.table[:, 0], "whole": merged.table[:, 1]}
        )
        for kind, pieces in (("finished", merged.finished), ("open", merged.open)):
            written += write_traits(uri(kind), pieces.traits, id=pieces.ids)
        names = ("own", "other", "piece")
        ends = {name: merged.open.edges[:, k] for k, name in enumerate(names)}
        return written + tables.write_columns(uri("open_edges"), ends)


def list_settlements(
    frame: BlockFrame, level: int, joined_by: list[Ledger], above: Ledger | None, *, dense: bool
) -> Iterator[Unit]:
    """A unit per region of a level that was joined. Payload: its mark, that of the region around
    it, and how many objects were finished before it, in the order of levels and regions.

    Args:
        frame: of the volume.
        level: of the regions.
        joined_by: ledgers of the stages `union_1` to the last.
        above: ledger of the stage that settled the level above; None for the last level.
        dense: whether objects are numbered.
    """
    marks, parents = joined_by[level - 1].marks(), above.marks() if above is not None else {}
    before = sum(record["kept"] for each in joined_by[: level - 1] for _, record in each.records())
    for key, record in joined_by[level - 1].records():
        parent = parents.get((level + 1, frame.parent(key[1])))
        yield RegionKey(*key), [marks[key], parent, before if dense else 0]
        before += record["kept"]


class SettleRegion:
    """Work of the stages `settle_<level>`: final ids of the pieces of the regions in one.

    `dense`: objects are numbered from 1 on without gaps; else each keeps the id of its first part.
    """

    def __init__(
        self, run: RunFolder, frame: BlockFrame, keep: KeepSettings, *, dense: bool
    ) -> None:
        self._run, self._frame, self._keep, self._dense = run, frame, keep, dense

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        _, parent, before = payload
        merged, columns = (
            tables.read_columns(table_uri(self._run, kind, key.level, key.region))
            for kind in ("merged", "finished")
        )
        finished = Pieces(columns["id"], traits_of(columns), np.zeros((0, 3), np.uint64))
        kept = self._keep.kept(finished)
        ids = np.where(kept, finished.ids, np.uint64(0))
        if self._dense:
            ids[kept] = np.arange(before + 1, before + 1 + kept.sum(), dtype=np.uint64)
        known = [np.stack([finished.ids, ids], axis=1)]
        if parent is not None:
            above = tables.read_columns(table_uri(self._run, "final", key.level, key.region))
            known.append(np.stack([above["part"], above["id"]], axis=1))
        every = np.concatenate(known)
        every = every[np.argsort(every[:, 0])]
        table = np.stack([merged["part"], merged["whole"]], axis=1)
        final = settled(table, every[:, 0], every[:, 1])
        written = write_traits(
            table_uri(self._run, "objects", key.level, key.region),
            finished.traits.take(kept), id=ids[kept],
        )  # fmt: skip
        handed = {"part": final[:, 0], "id": final[:, 1]}
        written += hand_down(self._run, self._frame, key, "final", handed)
        return {"bytes_written": written}
