"""Pieces of all blocks -> which of them are one object.

Every block counts what its pieces touch (`contacts`); they are joined region by region, see
`agglomerate`; and every block says which of its contacts lie inside an object now (`join`). Those
lead from block to block, so that objects are numbered as all others are, see `union`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.agglomerate import added, contacts
from warpbeam.kernels.segment.blocks import Step, neighbour_steps
from warpbeam.kernels.segment.union import Edges, roots_of
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.segment.volume.frame import (
    BlockFrame,
    Index,
    indices_in,
    level_uri,
    table_uri,
)
from warpbeam.transforms.segment.volume.join import neighbours, store_edges
from warpbeam.transforms.segment.volume.pieces import SheetReader, SheetSettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

Ids = np.ndarray[Any, Any]
_NONE = np.zeros((0, 2), np.uint64)


@dataclass(frozen=True)
class PieceSettings:
    """When pieces are one object.

    Attributes:
        sheets: what speaks against it.
        threshold, enclosed: see `kernels.segment.agglomerate`.
    """

    sheets: SheetSettings
    threshold: float
    enclosed: float

    @property
    def steps(self) -> list[Step]:
        """To the blocks whose pieces a block's may touch, as it counts them."""
        return [step for step in neighbour_steps(6) if not (self.sheets.flat and step[0])]


def list_contacts(
    run: RunFolder, frame: BlockFrame, settings: PieceSettings, labelled: Ledger
) -> Iterator[Unit]:
    """A unit per block that is cut. Payload: the weights, and marks of it and its neighbours."""
    marks = labelled.marks()
    if not marks:
        return
    given = store.read_json(level_uri(run))
    for key, mark in marks.items():
        beside = (other for _, other in neighbours(frame, key[1], settings.steps))
        yield RegionKey(*key), [given, mark, [marks.get(RegionKey(0, b)) for b in beside]]


class CountContacts:
    """Work of the stage `contacts`: what the pieces of one block touch, in it and behind it."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: PieceSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def setup(self) -> None:
        self._reader = SheetReader(self._run, self._frame, self._settings.sheets)

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        given, _, marks = payload
        core = self._frame.grid.box(key.region)
        reach = (0, 1, 1) if self._settings.sheets.flat else (1, 1, 1)
        stop = tuple(b + r for b, r in zip(core.stop, reach, strict=True))
        box = Box(core.start, stop) & Box.of_shape(self._frame.shape)
        labels = self._ids(key.region, box, marks)
        evidence = self._reader.evidence(box, given)
        if self._settings.sheets.flat:
            pairs = zip(labels, evidence, strict=True)
            found = added([contacts(one, other, core.shape[1:]) for one, other in pairs])
        else:
            found = contacts(labels, evidence, core.shape)
        uri = table_uri(self._run, "contacts", 0, key.region)
        written = tables.write_columns(uri, found._asdict())
        return {"contacts": len(found.a), "bytes_written": written}

    def _ids(self, index: Index, box: Box, marks: Sequence[Any]) -> Ids:
        """Of a block, and of the layers of its neighbours in the box; 0 where nothing is known."""
        frame, out = self._frame, np.zeros(box.shape, np.uint64)
        beside = neighbours(frame, index, self._settings.steps)
        known = [other for (_, other), mark in zip(beside, marks, strict=True) if mark is not None]
        for block in (index, *known):
            part = frame.grid.box(block) & box
            out[part.slices_in(box)] = frame.ids(self._run, block, part)
        return out


def roots(run: RunFolder, level: int, index: Index, kind: str = "roots") -> Edges:
    """The roots of a region's pieces (of a block's, for level 0), as a forest."""
    found = tables.read_columns(table_uri(run, kind, level, index))
    return np.stack([found["piece"], found["root"]], axis=1)


class JoinPieces:
    """Work of the stage `join`: contacts of one block that lie inside of objects."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: PieceSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        return store_edges(self._run, key.region, self.edges(key.region, payload[1]))

    def edges(self, index: Index, marks: Sequence[Any]) -> Edges:
        """Pairs of ids that are one object; see `join.JoinBlock.edges`."""
        graph = tables.read_columns(table_uri(self._run, "contacts", 0, index))
        beside = neighbours(self._frame, index, self._settings.steps)
        known = [other for (_, other), mark in zip(beside, marks, strict=True) if mark is not None]
        # blocks come in order of their numbers, and so do the ids of their pieces
        every = np.concatenate([_NONE, *(roots(self._run, 0, b) for b in sorted((index, *known)))])
        one = roots_of(graph["a"], every) == roots_of(graph["b"], every)
        return np.stack([graph["a"][one], graph["b"][one]], axis=1)

    def seen(self, index: Index, box: Box) -> tuple[Ids, Edges]:
        """Objects in a box, and one piece of each: of the block itself where it has any.

        Args:
            index: of the block.
            box: within the block's row along z.

        Returns:
            The root at each voxel, `[z, y, x]`; and pairs of root and piece, by roots.
        """
        pieces, objects = np.zeros(box.shape, np.uint64), np.zeros(box.shape, np.uint64)
        for block, part in _blocks_in(self._frame, index, box):
            ids = self._frame.ids(self._run, block, part)
            inside = part.slices_in(box)
            pieces[inside] = ids
            forest = roots(self._run, 0, block)
            objects[inside] = roots_of(ids.ravel(), forest).reshape(ids.shape)
        pairs = np.unique(np.stack([objects.ravel(), pieces.ravel()], axis=1), axis=0)
        away = pairs[:, 1] >> np.uint64(32) != np.uint64(self._frame.number(index))
        pairs = pairs[np.lexsort((pairs[:, 1], away, pairs[:, 0]))]
        first = np.unique(pairs[:, 0], return_index=True)[1]
        return objects, pairs[first]


def _blocks_in(frame: BlockFrame, index: Index, box: Box) -> Iterator[tuple[Index, Box]]:
    """A block and those beside it in its row, and what of a box lies in each."""
    every = Box.of_shape(frame.grid.counts)
    around = Box(index, tuple(i + 1 for i in index)).pad((0, 1, 1)) & every
    for block in indices_in(around):
        part = frame.grid.box(block) & box
        if part:
            yield block, part
