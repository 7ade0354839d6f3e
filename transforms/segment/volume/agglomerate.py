r"""Which pieces of all blocks are one object, region by region: up, and down again.

Up (`agglomerate_1` to `agglomerate_n`): each region joins its pieces as far as nothing beside it
can matter, and leaves the rest to the region around it, each piece as what it has become. Down
(`roots_n` to `roots_1`): each region says what its pieces are in the end to the regions in it,
until every block knows that of its own.

    beside | region    | beside         Contacts that lead out of a region count in it. What those
        o -|- o --- o -|- o             outside touch further on is not seen: what goes best with
           |   \   /   |                one of them waits.
           |     o     |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.segment.agglomerate import (
    Contacts,
    Surfaces,
    added,
    agglomerate,
    remaining,
    renamed,
    surfaces,
)
from warpbeam.kernels.segment.blocks import Step
from warpbeam.kernels.segment.union import Edges, merge, roots_of
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.segment.volume.frame import (
    BlockFrame,
    Index,
    hand_down,
    indices_in,
    table_uri,
)
from warpbeam.transforms.segment.volume.joins import PieceSettings, roots
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

Inside = np.ndarray[Any, np.dtype[np.bool_]]


def list_regions(
    frame: BlockFrame, steps: Sequence[Step], level: int, below: Ledger
) -> Iterator[Unit]:
    """A unit per region of a level. Payload: the regions of the level below (blocks, for level 1)
    in it, and those beside it, each with its mark."""
    marks = below.marks()

    def marked(regions: Iterable[Index]) -> list[Any]:
        return [
            [index, marks[level - 1, index]] for index in regions if (level - 1, index) in marks
        ]

    for index in frame.regions(level).indices():
        own, beside = frame.children(level, index), _beside(frame, steps, level, index)
        yield RegionKey(level, index), [marked(own), marked(beside)]


def _beside(frame: BlockFrame, steps: Sequence[Step], level: int, index: Index) -> Iterator[Index]:
    """The regions of the level below that touch one from outside."""
    counts = frame.regions(level - 1).counts
    inside = BlockGrid(counts, (frame.fan_out,) * 3).box(index)
    for step in steps:
        axis = step.index(1)
        for at in (inside.start[axis] - 1, inside.stop[axis]):
            if 0 <= at < counts[axis]:
                start, stop = list(inside.start), list(inside.stop)
                start[axis], stop[axis] = at, at + 1
                yield from indices_in(Box(tuple(start), tuple(stop)))


class JoinRegion:
    """Work of the stages `agglomerate_<level>`: the pieces of one region.

    Writes which are one, and what is left: contacts, and the surfaces of the pieces inside.
    """

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: PieceSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        own, beside = ([(key.level - 1, tuple(index)) for index, _ in part] for part in payload)
        names = merge([_forest(self._run, *each) for each in (*own, *beside)])
        mine, theirs = (
            renamed(added([_contacts(self._run, *each) for each in part]), names)
            for part in (own, beside)
        )
        graph = added([mine, theirs])
        graph = _rows(graph, self._inside(key, graph.a) | self._inside(key, graph.b))
        surface = surfaces(graph, _surfaces(self._run, [*own, *beside]))
        outside = surface.ids[~self._inside(key, surface.ids)]
        threshold, enclosed = self._settings.threshold, self._settings.enclosed
        joined = agglomerate(graph, threshold, enclosed, surface=surface, outside=outside)
        left = remaining(graph, surface, joined, threshold + enclosed, outside)
        rest = renamed(mine, joined)
        open_ = [np.isin(end, left.ids) | np.isin(end, outside) for end in (rest.a, rest.b)]
        rest = _rows(rest, open_[0] & open_[1])
        written = self._write(key, joined, rest, left)
        return {"contacts": len(graph.a), "joined": len(joined), "left": len(rest.a),
                "bytes_written": written}  # fmt: skip

    def _inside(self, key: RegionKey, ids: np.ndarray[Any, Any]) -> Inside:
        number = np.ravel_multi_index(key.region, self._frame.regions(key.level).counts)
        return self._frame.child_numbers(key.level, ids) == number

    def _write(self, key: RegionKey, joined: Edges, rest: Contacts, left: Surfaces) -> int:
        columns = {
            "forest": {"piece": joined[:, 0], "root": joined[:, 1]},
            "contacts": rest._asdict(),
            "surfaces": left._asdict(),
        }
        return sum(
            tables.write_columns(table_uri(self._run, kind, *key), values)
            for kind, values in columns.items()
        )


def list_roots(
    level: int, joined: Ledger, above: Ledger | None, frame: BlockFrame
) -> Iterator[Unit]:
    """A unit per region of a level. Payload: its mark, and that of the region around it."""
    parents = above.marks() if above is not None else {}
    for (_, index), mark in joined.marks().items():
        yield RegionKey(level, index), [mark, parents.get((level + 1, frame.parent(index)))]


class HandDown:
    """Work of the stages `roots_<level>`: the roots of pieces, for the regions in one.

    A piece that is not named is its own root.
    """

    def __init__(self, run: RunFolder, frame: BlockFrame) -> None:
        self._run, self._frame = run, frame

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        here, above = _forest(self._run, *key), np.zeros((0, 2), np.uint64)
        if key.level < self._frame.depth:
            above = roots(self._run, key.level, key.region)
        pieces = np.unique(np.concatenate([here[:, 0], above[:, 0]]))
        final = roots_of(roots_of(pieces, here), above)
        handed = {"piece": pieces, "root": final}
        return {"bytes_written": hand_down(self._run, self._frame, key, "roots", handed)}


def _contacts(run: RunFolder, level: int, index: Index) -> Contacts:
    """The contacts that a region counts as its own; for level 0, a block."""
    return Contacts(**tables.read_columns(table_uri(run, "contacts", level, index)))


def _rows(graph: Contacts, wanted: Inside) -> Contacts:
    return Contacts(*(column[wanted] for column in graph))


def _forest(run: RunFolder, level: int, index: Index) -> Edges:
    """Which pieces of a region became one in it; in a block none do."""
    if level == 0:
        return np.zeros((0, 2), np.uint64)
    return roots(run, level, index, "forest")


def _surfaces(run: RunFolder, regions: Sequence[tuple[int, Index]]) -> Surfaces | None:
    """Of the pieces that some regions left over; None for blocks, which leave all."""
    parts = [
        tables.read_columns(table_uri(run, "surfaces", level, index))
        for level, index in regions
        if level > 0
    ]
    if not parts:
        return None
    ids, faces = (np.concatenate([part[name] for part in parts]) for name in ("ids", "faces"))
    order = np.argsort(ids)
    return Surfaces(ids[order], faces[order])
