"""Placed tiles -> fused volume. Overlaps meet by key; pixels are read where they are needed.

tile, matrix --> (shard, tile) for each shard it touches --> GroupByKey
    --> one worker reads the parts, blends them in order of the tiles, writes the shard

A shard that was fused before meets the others as (shard, nothing): where no tile touches it any
more, it is written empty.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from warpbeam.kernels.fuse import render, view, warp
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.canvas import Canvas, load_canvas
from warpbeam.transforms.contrast import ContrastSettings, EvenTiles
from warpbeam.transforms.drawn import brightness, drawn, sampled
from warpbeam.transforms.keys import ShardKey, TileKey
from warpbeam.transforms.shading import ShadingReader, shading_fingerprint
from warpbeam.transforms.stage import (
    Announced,
    Barrier,
    RunStage,
    Stage,
    StatelessFn,
    announced,
)
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.images import CorruptImageError, together
from warpbeam.transforms.storage.ledger import Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileReader, TileSource


@dataclass(frozen=True)
class FuseSettings:
    """How tiles become one image; see `kernels.fuse.blend` and `kernels.fuse.warp`."""

    blending: str
    interpolation: str
    coverage: bool
    margin: int
    contrast: ContrastSettings


class FuseTiles(beam.PTransform):
    """Writes every level-0 shard that a tile touches or touched before, and the levels inside it.

    Applied to the tiles, and the keys of the shards that are done.
    """

    def __init__(self, stage: Stage, run: RunFolder, settings: FuseSettings) -> None:
        super().__init__()
        self._stage, self._run, self._settings = stage, run, settings

    def expand(self, given: beam.PCollection[PlacedTile | ShardKey]) -> Barrier:
        return (
            given
            | "to shards"
            >> beam.ParDo(_ToShardsFn(self._run, self._settings.blending)).with_output_types(
                tuple[ShardKey, Any]  # names the key's coder, which grouping goes by
            )
            | "meet" >> beam.GroupByKey()
            | "order"
            >> beam.ParDo(_OrderFn(self._run, self._stage.name)).with_output_types(Announced)
            | RunStage(self._stage, FuseShard(self._run, self._settings))
        )


class _ToShardsFn(StatelessFn):
    def __init__(self, run: RunFolder, blending: str) -> None:
        self._run, self._blending = run, blending

    def start_bundle(self) -> None:
        self._canvas = load_canvas(self._run)
        self._bends = BendReader(self._run)

    def process(
        self, placed: PlacedTile | ShardKey
    ) -> Iterator[tuple[ShardKey, PlacedTile | None]]:
        if isinstance(placed, ShardKey):
            yield placed, None
            return
        bend = self._bends.reach(placed.source.key)
        footprint = self._canvas.footprint(placed, bend)
        for block in self._canvas.shards_of(placed, render.spill(self._blending), bend):
            shard = self._canvas.drop(self._canvas.grid.box(block))
            if footprint.meets(render.needed(shard, self._blending)):
                yield ShardKey(0, block), placed


class _OrderFn(StatelessFn):
    """Grouped values come in any order; sums need one, and so does a unit's fingerprint."""

    def __init__(self, run: RunFolder, stage: str) -> None:
        self._run, self._stage = run, stage

    def start_bundle(self) -> None:
        self._canvas = load_canvas(self._run)
        self._shading = shading_fingerprint(self._run)
        self._bends = BendReader(self._run)

    def process(self, group: tuple[ShardKey, Iterable[PlacedTile | None]]) -> Iterator[Announced]:
        key, placed = group
        tiles = sorted(tile for tile in placed if tile is not None)
        maps = self._bends.fingerprint(tile.source.key for tile in tiles)
        payload = (self._canvas.origin, self._canvas.shape, self._shading, *maps, tiles)
        yield from announced(self._stage, [(key, payload)])


class FuseShard:
    """Work of the stage `fuse`: one whole level-0 shard.

    Payload: origin and shape of the canvas, fingerprints of the shading and of the maps of
    bent tiles, and the placed tiles that touch the shard. Where one of them is corrupt the
    shard is written without it, and then fails: nothing else is lost, and the shard is done
    again once it is repaired.
    """

    def __init__(self, run: RunFolder, settings: FuseSettings) -> None:
        self._run, self._settings = run, settings

    def setup(self) -> None:
        self._tiles = TileReader(self._run)
        self._shading = ShadingReader(self._run)
        self._bends = BendReader(self._run)
        self._even = EvenTiles(self._run, self._tiles, self._settings.contrast)
        self._spare = threading.local()

    def _blank(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """An array for a shard, in the memory of the last one: new pages cost more than theirs."""
        block, size = self._spare.__dict__.pop("block", None), math.prod(shape) * dtype.itemsize
        if block is None or block.size < size:
            block = np.empty(size, np.uint8)
        return block[:size].view(dtype).reshape(shape)

    def __call__(self, key: ShardKey, payload: Any) -> Record:
        *_, placed = payload
        canvas = load_canvas(self._run)
        box = canvas.grid.box(key.block)
        target = volume.open_volume(self._run.volume)
        values = self._blank(box.shape, target.level(0).dtype)
        count = np.zeros((1, 1, *box.shape[2:]), np.uint8)
        counting = self._settings.coverage and box.start[1] == 0
        read, covered, quantiles = 0, 0.0, []
        corrupt: list[CorruptImageError] = []
        for channel in range(box.start[1], box.stop[1]):
            views = list(self._views(placed, canvas, canvas.drop(box), channel, corrupt))
            read += sum(v.pixels.nbytes for v in views)
            at = channel - box.start[1]
            plane = canvas.drop(box)
            image = values[:, at].reshape(plane.shape)
            render.render(
                plane, views, mode=self._settings.blending,
                interpolation=self._settings.interpolation, margin=self._settings.margin,
                dtype=values.dtype,
                count=count.reshape(plane.shape) if counting and at == 0 else None, out=image,
            )  # fmt: skip
            sample = (slice(None),) * (plane.ndim - 2) + sampled(plane.shape[-2:])
            seen = render.covered_samples(plane, views, sample)
            covered += float(seen.mean()) * plane.size
            quantiles.append(brightness(image[sample][seen]))
            views.clear()  # compressing needs their memory
        written = target.write_with_levels(box, values)
        self._spare.block = values.base  # nothing refers to it any more
        if counting:
            first = Box((box.start[0], 0, *box.start[2:]), (box.stop[0], 1, *box.stop[2:]))
            counts = volume.open_volume(self._run.coverage)
            written += counts.write_with_levels(first, count)
        if corrupt:
            raise together(corrupt)
        return drawn(box, read=read, written=written, covered=covered, quantiles=quantiles)

    def _views(
        self,
        placed: list[PlacedTile],
        canvas: Canvas,
        box: Box,
        channel: int,
        corrupt: list[CorruptImageError],
    ) -> Iterator[view.TileView]:
        """The tiles that can be read; the errors of the others are added to `corrupt`."""
        around = render.needed(box, self._settings.blending)
        margin = warp.reach(self._settings.interpolation)
        for tile in placed:
            matrix = canvas.on_output(tile.matrix)
            reach = margin + self._bends.reach(tile.source.key)
            window = view.source_box(np.linalg.inv(matrix), tile.source.shape, around, reach)
            if not window:
                continue
            try:
                found = self._view(tile.source, matrix, window, channel)
            except CorruptImageError as problem:
                corrupt.append(problem)
            else:
                yield found

    def _view(
        self, source: TileSource, matrix: affine.Matrix, window: Box, channel: int
    ) -> view.TileView:
        shading = self._shading.of(TileKey(*source.key), channel)
        pixels: np.ndarray[Any, Any]
        if self._settings.contrast.how == "none":
            pixels, mask = self._tiles.valid(source, channel, window)
        else:
            even = self._even.read(source, channel, shading, window)
            mask, shading = np.isfinite(even), Shading()
            pixels = np.where(mask, even, np.float32(0))
        bend = self._bends.of(source.key)
        return view.TileView(pixels, window, source.shape, matrix, mask, shading, bend)
