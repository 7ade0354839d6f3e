"""Two blocks -> which of their labels are one object. Pairs of ids travel, no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.blocks import (
    Connectivity,
    Edges,
    Step,
    as_edges,
    boundary_box,
    neighbour_steps,
    opposite,
    touching,
)
from warpbeam.kernels.segment.solid import alike
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.segment.volume.frame import BlockFrame, Index, table_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


@dataclass(frozen=True)
class JoinSettings:
    """When two labels are one object.

    Attributes:
        connectivity: of voxels across a cut.
        least_iou: share of the voxels that both blocks labelled which both must give to the two
            labels; None: they must touch.
        flat: every section was labelled by itself, and no label is in two.
    """

    connectivity: Connectivity
    least_iou: float | None
    flat: bool = False

    @property
    def steps(self) -> list[Step]:
        """To the blocks that a block is compared with."""
        steps = neighbour_steps(6 if self.least_iou is not None else self.connectivity)
        return [step for step in steps if not (self.flat and step[0])]


def neighbours(frame: BlockFrame, index: Index, steps: list[Step]) -> Iterator[tuple[Step, Index]]:
    """The blocks that some steps from a block lead to."""
    every = Box.of_shape(frame.grid.counts)
    for step in steps:
        other = tuple(i + s for i, s in zip(index, step, strict=True))
        if every.contains(Box.of_shape((1, 1, 1), other)):
            yield step, other


def list_joins(
    frame: BlockFrame, steps: list[Step], blocks: Ledger, also: Ledger | None = None
) -> Iterator[Unit]:
    """A unit per block that is done. Payload: marks of it, and of its neighbours.

    Args:
        frame: which blocks there are.
        steps: to those that a block is compared with.
        blocks: whose units are blocks.
        also: what all units depend on.
    """
    marks = blocks.marks()
    every = also.fingerprint() if also else None
    for key, mark in marks.items():
        beside = (other for _, other in neighbours(frame, key[1], steps))
        yield RegionKey(*key), [[mark, every], [marks.get(RegionKey(0, other)) for other in beside]]


def store_edges(run: RunFolder, index: Index, edges: Edges) -> Record:
    """Keeps the pairs of ids that a block found to be one object."""
    columns = {"a": edges[:, 0], "b": edges[:, 1]}
    written = tables.write_columns(table_uri(run, "edges", 0, index), columns)
    return {"edges": len(edges), "bytes_written": written}


class JoinBlock:
    """Work of the stage `join`: one block and those that come after it."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: JoinSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        return store_edges(self._run, key.region, self.edges(key.region, payload[1]))

    def edges(self, index: Index, marks: Sequence[Any]) -> Edges:
        """Pairs of ids that are one object.

        Args:
            index: of the block.
            marks: of its neighbours, in the order of the steps; None: not labelled.
        """
        found = [np.zeros((0, 2), np.uint64)]
        beside = neighbours(self._frame, index, self._settings.steps)
        for (step, other), mark in zip(beside, marks, strict=True):
            if mark is not None:
                blocks = self._frame.number(index), self._frame.number(other)
                found.append(as_edges(self._pairs(index, other, step), blocks))
        return np.concatenate(found)

    def seen(self, index: Index, box: Box) -> tuple[np.ndarray[Any, Any], Edges]:
        """Objects in a box that lies in a block and its halo, as the block itself labelled them;
        and pairs of an object and an id that stands for it: itself."""
        ids = self._frame.ids(self._run, index, box)
        found = np.unique(ids)
        return ids, np.stack([found, found], axis=1)

    def _pairs(self, index: Index, other: Index, step: Step) -> np.ndarray[Any, Any]:
        frame, settings = self._frame, self._settings
        if settings.least_iou is not None:
            common = frame.read_box(index) & frame.read_box(other)
            here, there = (frame.local(self._run, block, common) for block in (index, other))
            return alike(here, there, settings.least_iou)
        here, there = (
            frame.local(self._run, block, boundary_box(frame.grid.box(block), towards))
            for block, towards in ((index, step), (other, opposite(step)))
        )
        layers = [(here, there)]
        if settings.flat:
            layers = [(here[z : z + 1], there[z : z + 1]) for z in range(len(here))]
        pairs = [touching(a, b, step, settings.connectivity) for a, b in layers]
        return np.unique(np.concatenate(pairs), axis=0)
