"""Where the placed tiles lie on the output volume, and that volume, empty.

World voxel w is output voxel `w - origin`. Two-dimensional tiles lie in the plane of
their section: sections are stacked along z in increasing order, without gaps.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.ledger import Key, Record, forget_stages
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.volume_spec import VolumeSpec, choose_levels
from warpbeam.transforms.tiles import PlacedTile


@dataclass(frozen=True)
class OutputSettings:
    """What the volume shall be like.

    Attributes:
        dtype: of the voxels.
        channels: names.
        chunk: zyx voxels of a chunk; cut where the volume is smaller.
        shard: zyx voxels of a shard, a multiple of `chunk`.
        compression: level.
        voxel: zyx size of a voxel.
        unit: long name of the unit of `voxel`; None where the size is not known.
        pyramid: whether coarser levels are made.
        coverage: whether the number of tiles on each voxel is stored too.
    """

    dtype: str
    channels: tuple[str, ...]
    chunk: tuple[int, int, int]
    shard: tuple[int, int, int]
    compression: int
    voxel: tuple[float, ...]
    unit: str | None
    pyramid: bool
    coverage: bool


@dataclass(frozen=True)
class Canvas:
    """The frame of the output.

    Attributes:
        ndim: of the tiles.
        origin: world voxel at output voxel 0; yx or zyx.
        times: time points along t.
        sections: sections along z, for two-dimensional tiles.
        shape: tczyx of the volume.
        shard: tczyx of a level-0 shard.
    """

    ndim: int
    origin: tuple[int, ...]
    times: tuple[int, ...]
    sections: tuple[int, ...]
    shape: tuple[int, ...]
    shard: tuple[int, ...]

    @functools.cached_property
    def grid(self) -> BlockGrid:
        """Level-0 shards."""
        return BlockGrid(self.shape, self.shard)

    def on_output(self, matrix: Sequence[Sequence[float]]) -> affine.Matrix:
        """A tile's matrix, source voxel to output voxel."""
        return affine.translation([-float(o) for o in self.origin]) @ affine.homogeneous(matrix)

    def lift(self, box: Box, key: TileKey, channel: int) -> Box:
        """A box of output voxels of one tile's plane or block, on tczyx."""
        t = self.times.index(key.time)
        z = () if self.ndim == 3 else (self.sections.index(key.section),)
        lead = (t, channel, *z)
        return Box((*lead, *box.start), (*(i + 1 for i in lead), *box.stop))

    def drop(self, box: Box) -> Box:
        """The plane (yx) or block (zyx) of a tczyx box."""
        keep = len(box.start) - self.ndim
        return Box(box.start[keep:], box.stop[keep:])

    def footprint(self, placed: PlacedTile, bend: int = 0) -> Box:
        """The output voxels, of its plane or block, that a tile can reach which bends so far."""
        area = Box.of_shape(placed.source.shape).pad((1 + bend,) * self.ndim)
        return affine.bounding_box(self.on_output(placed.matrix), area)

    def shards_of(self, placed: PlacedTile, halo: int, bend: int = 0) -> Iterator[tuple[int, ...]]:
        """The level-0 shards within `halo` of a tile, all channels; computed, not searched."""
        reached = self.footprint(placed, bend).pad((halo,) * self.ndim)
        for channel in range(0, self.shape[1], self.shard[1]):
            yield from self.grid.touching(self.lift(reached, placed.source.key, channel))


def frame(
    placed: Iterable[PlacedTile],
    settings: OutputSettings,
    format: str,
    bends: BendReader | None = None,
) -> Canvas:
    """The smallest canvas that holds every tile.

    Raises:
        ValueError: no tile.
    """
    boxes, times, sections = [], set(), set()
    for tile in placed:
        matrix = affine.homogeneous(tile.matrix)
        bounds = None if bends is None else bends.bounds(tile.source.key)
        boxes.append(bounds or affine.bounding_box(matrix, Box.of_shape(tile.source.shape)))
        times.add(tile.source.key.time)
        sections.add(tile.source.key.section)
    if not boxes:
        raise ValueError("a canvas needs at least one tile, got none")
    whole = Box(
        tuple(np.min([b.start for b in boxes], axis=0).tolist()),
        tuple(np.max([b.stop for b in boxes], axis=0).tolist()),
    )
    return canvas_on(whole, settings, format, tuple(sorted(times)), tuple(sorted(sections)))


def canvas_on(
    whole: Box,
    settings: OutputSettings,
    format: str,
    times: tuple[int, ...] = (0,),
    sections: tuple[int, ...] = (),
) -> Canvas:
    """The canvas on a box of world voxels, yx or zyx; of the sections' planes in 2-D."""
    depth = () if whole.ndim == 3 else (len(sections),)
    shape = (len(times), len(settings.channels), *depth, *whole.shape)
    return Canvas(
        whole.ndim,
        whole.start,
        times,
        sections,
        shape,
        (
            1,
            _channels_together(format, shape),
            *_fit(settings.shard, settings.chunk, shape[2:], flat=whole.ndim == 2),
        ),
    )


def _channels_together(format: str, shape: Sequence[int]) -> int:
    """Channels in one chunk: the precomputed format keeps them all together."""
    return shape[1] if format == "precomputed" else 1


def _fit(
    block: Sequence[int], chunk: Sequence[int], shape: Sequence[int], *, flat: bool
) -> tuple[int, ...]:
    """A block no larger than the volume needs, still a multiple of the fitted chunk."""
    if flat:
        block, chunk = (1, *block[1:]), (1, *chunk[1:])
    return tuple(min(b, -(-n // c) * c) for b, c, n in zip(block, chunk, shape, strict=True))


def volume_spec(canvas: Canvas, settings: OutputSettings, run: RunFolder) -> VolumeSpec:
    """The volume that a canvas and the settings ask for."""
    depth = 1 if canvas.ndim == 2 else settings.chunk[0]
    chunk = (1, canvas.shard[1], depth, *settings.chunk[1:])
    # Sections of a montage are not aligned to one another yet: they are never averaged.
    pitch = settings.voxel if canvas.ndim == 3 else (math.inf, *settings.voxel[1:])
    factors = choose_levels(canvas.shape, chunk, pitch) if settings.pyramid else ()
    origin = (0.0,) * (3 - canvas.ndim) + tuple(map(float, canvas.origin))
    return VolumeSpec(
        run.volume,
        canvas.shape,
        settings.dtype,
        chunk,
        canvas.shard,
        format=run.format,
        voxel=settings.voxel,
        unit=settings.unit,
        origin=origin,
        factors=factors,
        channels=settings.channels,
        compression=settings.compression,
    )


def coverage_spec(spec: VolumeSpec, run: RunFolder) -> VolumeSpec:
    """The volume of tile counts on the same grid, one channel."""
    return dataclasses.replace(
        spec,
        uri=run.coverage,
        dtype="uint8",
        channels=("tiles",),
        method="mode",
        shape=(spec.shape[0], 1, *spec.shape[2:]),
        chunk=(1, 1, *spec.chunk[2:]),
        shard=(1, 1, *spec.shard[2:]),
    )


class LayOut:
    """Work of the stage `canvas`: one unit, because one volume is made.

    Its payload fingerprints the placement; the volume is made anew when it changed shape.
    """

    def __init__(self, run: RunFolder, settings: OutputSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        bends = BendReader(self._run)
        canvas = frame(load_placement(self._run), self._settings, self._run.format, bends)
        spec = volume_spec(canvas, self._settings, self._run)
        specs = [spec]
        if self._settings.coverage:
            specs.append(coverage_spec(spec, self._run))
        return lay_out(self._run, canvas, specs, ("fuse/", "pyramid_", "coverage_"))


def lay_out(
    run: RunFolder, canvas: Canvas, specs: Sequence[VolumeSpec], stages: Sequence[str]
) -> Record:
    """Stores a canvas and makes its volumes, the result first; empty ones where they changed.

    `stages` begin the names of those that write to the volumes.
    """
    if any(volume.stored_spec(each.uri) != each for each in specs):
        # Nothing that was written to a canvas of another shape counts.
        for names in stages:
            forget_stages(run.uri, names)
        for each in specs:
            store.delete_prefix(each.uri + "/")
    for each in specs:
        volume.create(each)
    store.write_json(run.canvas, asdict(canvas))
    return {"shape": canvas.shape, "levels": len(specs[0].levels)}


def load_canvas(run: RunFolder) -> Canvas:
    """The canvas that the stage `canvas` stored."""
    value = store.read_json(run.canvas)
    tuples = {k: tuple(v) for k, v in value.items() if k != "ndim"}
    return Canvas(value["ndim"], **tuples)
