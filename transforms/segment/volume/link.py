"""Sections labelled one by one -> which of their objects are one, through the flow between them.

    z + 2   [ a'' ]    [ c' ]     The labels of the next section are drawn where this one shows
    z + 1   [ a'  ]    ......     the same tissue, and best pairs are linked. What has no link
    z       [ a   ]    [ c  ]     there is looked for a section further, among what has none either.

A block links its own sections, and the last of them with those of the blocks behind it. It
compares what lies in the block and its halo, so that an object at its border is seen whole.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.segment.link import Overlaps, mutual_best, overlap_table, returning
from warpbeam.kernels.segment.union import Edges, roots_of
from warpbeam.kernels.warp.labels import warp_labels
from warpbeam.kernels.warp.source import Source
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.segment.volume.frame import BlockFrame, Index, table_uri
from warpbeam.transforms.segment.volume.join import JoinBlock, JoinSettings, list_joins, store_edges
from warpbeam.transforms.segment.volume.joins import JoinPieces, PieceSettings
from warpbeam.transforms.segment.volume.reading import GreyReader, GreySettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

TABLE = "links"
Labels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LinkSettings:
    """How sections are compared, and when two objects are one.

    Attributes:
        grey: what the flow is measured on.
        patch, stride, search, steps: see `kernels.flow.field.FlowSettings`; px.
        least_iou: see `kernels.segment.link.mutual_best`.
        least_return: see `kernels.segment.link.returning`; 0: it is not measured.
        gap: sections to the furthest one that is compared.
        within: how the labels of a section are joined.
    """

    grey: GreySettings
    patch: int
    stride: int
    search: int
    steps: int
    least_iou: float
    least_return: float
    gap: int
    within: JoinSettings | PieceSettings

    def map(self, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> CoordinateMap:
        """From one section to another."""
        from warpbeam.kernels.flow.field import FlowSettings
        from warpbeam.kernels.segment.section_map import section_map

        patch, stride, search = ((n, n) for n in (self.patch, self.stride, self.search))
        return section_map(first, second, FlowSettings(patch, stride, search, steps=self.steps))


def list_links(
    frame: BlockFrame, settings: LinkSettings, blocks: Ledger, also: Ledger | None = None
) -> Iterator[Unit]:
    """A unit per block that is done; see `join.list_joins`. Its payload, and marks of the blocks
    behind it."""
    marks = blocks.marks()
    for key, payload in list_joins(frame, settings.within.steps, blocks, also):
        z, y, x = key[1]
        after = [(z + k, y, x) for k in range(1, 1 + frame.reach)]
        yield key, [*payload, [marks.get(RegionKey(0, b)) for b in after]]


class Links(NamedTuple):
    """Objects of two sections that are one.

    Attributes:
        pairs: with the ids of both.
        returned: forward-backward consistency; NaN where it was not measured.
    """

    pairs: Overlaps
    returned: np.ndarray[Any, Any]


class LinkBlock:
    """Work of the stage `join` where sections are linked: the sections of one block.

    Writes edges for the union, and a table of the links between sections.
    """

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: LinkSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings
        self._plane = _plane(run, frame, settings.within)

    def setup(self) -> None:
        set_up_jax()
        self._reader = GreyReader(self._run, self._settings.grey)

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        _, beside, after = payload
        first, last = (end[0] for end in (self._box(key).start, self._box(key).stop))
        known = [mark is not None for mark in after]
        reach = min(
            self._frame.shape[0], last + self._frame.block[0] * [*known, False].index(False)
        )
        column = _Column(
            self._run, self._frame, self._settings, self._reader, self._plane, key.region, reach
        )
        gaps = range(1, self._settings.gap + 1)
        found = {(z, gap): column.named(z, gap) for z in range(first, last) for gap in gaps}
        edges = [self._plane.edges(key.region, beside)]
        edges += [np.stack([one.pairs.first, one.pairs.second], axis=1) for one in found.values()]
        stored = store_edges(self._run, key.region, np.concatenate(edges))
        rows = tables.write_columns(table_uri(self._run, TABLE, 0, key.region), _rows(found))
        counts = [len(one.returned) for one in found.values()]
        bridges = sum(n for (_, gap), n in zip(found, counts, strict=True) if gap > 1)
        written = stored["bytes_written"] + rows
        return {**stored, "links": sum(counts), "bridges": bridges, "bytes_written": written}

    def _box(self, key: RegionKey) -> Box:
        return self._frame.grid.box(key.region)


def _plane(
    run: RunFolder, frame: BlockFrame, within: JoinSettings | PieceSettings
) -> JoinBlock | JoinPieces:
    if isinstance(within, PieceSettings):
        return JoinPieces(run, frame, within)
    return JoinBlock(run, frame, within)


def _rows(found: dict[tuple[int, int], Links]) -> dict[str, np.ndarray[Any, Any]]:
    counts = [len(one.returned) for one in found.values()]
    columns = {
        name: np.concatenate([getattr(one.pairs, name) for one in found.values()])
        for name in Overlaps._fields
    }
    for k, name in enumerate(("z", "gap")):
        columns[name] = np.repeat([at[k] for at in found], counts)
    return columns | {"returned": np.concatenate([one.returned for one in found.values()])}


class _Column:
    """The sections of one block and of those behind it, in the block's plane with its halo."""

    def __init__(
        self,
        run: RunFolder,
        frame: BlockFrame,
        settings: LinkSettings,
        reader: GreyReader,
        plane: JoinBlock | JoinPieces,
        index: Index,
        stop: int,
    ) -> None:
        self._run, self._frame, self._settings, self._reader = run, frame, settings, reader
        self._within, self._index, self._stop = plane, index, stop
        # as many as are compared with one
        held = 2 * settings.gap + 1
        self.grey = functools.lru_cache(held)(self._grey)
        self.seen = functools.lru_cache(held)(self._seen)
        self.links = functools.lru_cache(None)(self._links)

    def _plane(self, z: int) -> Box:
        box = self._frame.read_box(self._index)
        return Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))

    def _grey(self, z: int) -> np.ndarray[Any, Any]:
        return self._reader.read(self._plane(z))[0]

    def _seen(self, z: int) -> tuple[Labels, Edges]:
        index = (z // self._frame.block[0], *self._index[1:])
        ids, standing = self._within.seen(index, self._plane(z))
        return ids[0], standing

    def ids(self, z: int) -> Labels:
        """Objects of a section."""
        return self.seen(z)[0]

    def named(self, z: int, gap: int) -> Links:
        """Links of a section that begin in the block itself, by ids that the union knows."""
        found = self.links(z, gap)
        if not len(found.returned):
            return found
        first, second = (
            roots_of(ids, self.seen(k)[1])
            for ids, k in ((found.pairs.first, z), (found.pairs.second, z + gap))
        )
        own = first >> np.uint64(32) == np.uint64(self._frame.number(self._index))
        pairs = found.pairs._replace(first=first, second=second)
        return Links(pairs.take(own), found.returned[own])

    def _links(self, z: int, gap: int) -> Links:
        """Links of section z with that `gap` further on, among what nearer ones left over."""
        if z + gap >= self._stop:
            return _NONE
        chosen = self._settings
        first, second = self.ids(z), self.ids(z + gap)
        for near in range(1, gap):
            first = _without(first, self.links(z, near).pairs.first)
            second = _without(second, self.links(z + gap - near, near).pairs.second)
        if not first.any() or not second.any():
            return _NONE
        m = chosen.map(self.grey(z), self.grey(z + gap))
        there = _drawn(second, m)
        table = overlap_table(first, there)
        table = table.take(mutual_best(table, chosen.least_iou))
        if not chosen.least_return:
            return Links(table, np.full(len(table.first), np.nan))
        back = chosen.map(self.grey(z + gap), self.grey(z))
        returned = returning(first, there, _drawn(_drawn(first, back), m), table)
        kept = returned >= chosen.least_return
        return Links(table.take(kept), returned[kept])


def _without(ids: Labels, linked: Labels) -> Labels:
    return np.where(np.isin(ids, linked), np.uint64(0), ids)


def _drawn(labels: Labels, m: CoordinateMap) -> Labels:
    return warp_labels(Source.whole(labels), m, Box.of_shape(labels.shape))


_NOTHING = np.zeros((1, 1), np.uint64)
_NONE = Links(overlap_table(_NOTHING, _NOTHING), np.zeros(0))


def one_table(linked: Ledger, settled: Ledger) -> Iterator[Unit]:
    """The single unit. Payload: fingerprints of the links, and of the final ids."""
    yield (TABLE,), [linked.fingerprint(), settled.fingerprint()]


class GatherLinks:
    """Work of the stage `links`: `links.parquet`, a row per link, a row group per block.

    Columns: `object`, its id in the result; `z` of the first section and the `gap` to the second;
    `voxels` that the two objects share; `iou`, `of_first`, `of_second`, see
    `kernels.segment.link.Overlaps`; `returned`, NaN where it was not measured.
    """

    def __init__(self, run: RunFolder, linked: Ledger) -> None:
        self._run, self._linked = run, linked

    def __call__(self, key: Key, payload: Any) -> Record:
        nothing = _named(_rows({(0, 1): _NONE}), _NOTHING[0][:0])
        blocks = (self._of_block(level, index) for level, index in self._linked.marks())
        rows, written = tables.write_groups(self._run.table(TABLE), nothing, blocks)
        return {"rows": rows, "bytes_written": written}

    def _of_block(self, level: int, index: Index) -> dict[str, np.ndarray[Any, Any]]:
        found = tables.read_columns(table_uri(self._run, TABLE, level, index))
        final = tables.read_columns(table_uri(self._run, "final", 0, index))
        edges = np.stack([final["part"], final["id"]], axis=1)
        ids = roots_of(found["first"], edges)
        kept = ids > 0
        return _named({name: column[kept] for name, column in found.items()}, ids[kept])


def _named(
    columns: dict[str, np.ndarray[Any, Any]], ids: Labels
) -> dict[str, np.ndarray[Any, Any]]:
    names: Sequence[str] = ("z", "gap", *Overlaps._fields[2:], "returned")
    return {"object": ids, **{name: columns[name] for name in names}}
