"""The tiles of a run as they travel through Beam, and how their pixels are reached."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import images, store, tile_store
from warpbeam.transforms.storage.images import ImageRef
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import Tile, TileList

Pixels = np.ndarray[Any, Any]
Rows = tuple[tuple[float, ...], ...]
Ref = tuple[str, int, int, int, int | None]


class TileSource(NamedTuple):
    """One tile and where its pixels lie.

    Attributes:
        key: identity of the tile.
        row: its row in the converted tiles and in the tile list.
        shape: yx or zyx.
        images: the fields of an `ImageRef` per channel.
        mask: the same for its mask, or None.
        direct: the images can be read in parts where they lie; else the converted tile is read.
        stage: where the tile list has it, source voxel to world voxel, in rows.
        version: changes when one of its files is written again, so that the units which read
            it are done again.
    """

    key: TileKey
    row: int
    shape: tuple[int, ...]
    images: tuple[Ref, ...]
    mask: Ref | None
    direct: bool
    stage: Rows
    version: str


class PlacedTile(NamedTuple):
    """A tile and its matrix, source voxel to world voxel, in rows."""

    source: TileSource
    matrix: Rows


def sources_of(tiles: TileList, *, direct: bool) -> list[TileSource]:
    """The tiles of a list, numbered in its order."""
    return [
        _source(row, tile, direct, version)
        for row, (tile, version) in enumerate(zip(tiles.tiles, tiles.versions(), strict=True))
    ]


def _source(row: int, tile: Tile, direct: bool, version: str) -> TileSource:
    return TileSource(
        TileKey(tile.time, tile.section, tile.tile),
        row,
        tile.shape,
        tuple(astuple(image) for image in tile.images),
        astuple(tile.mask) if tile.mask else None,
        direct,
        as_rows(tile.world_matrix()),
        version,
    )


def as_rows(matrix: Pixels) -> Rows:
    """A matrix as it travels: tuples of floats."""
    return tuple(tuple(row) for row in matrix.tolist())


def save_sources(run: RunFolder, sources: list[TileSource]) -> None:
    store.write_json(run.sources, sources)


def load_sources(run: RunFolder) -> Iterator[TileSource]:
    """The tiles of a run, in order of their rows."""
    for key, row, shape, refs, mask, direct, stage, version in store.read_json(run.sources):
        yield TileSource(
            TileKey(*key),
            row,
            tuple(shape),
            tuple(map(tuple, refs)),
            tuple(mask) if mask else None,
            direct,
            tuple(map(tuple, stage)),
            version,
        )


class TileReader:
    """Reads tiles of a run; one per worker, because it keeps what it has opened."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._masks = functools.lru_cache(maxsize=16)(_read_whole_mask)

    @functools.cached_property
    def _converted(self) -> tile_store.TileStore:
        return tile_store.TileStore.open(self._run.converted)

    def pixels(self, source: TileSource, channel: int, box: Box) -> Pixels:
        """The voxels of a box (in voxels of the tile) of one channel."""
        if source.direct:
            return images.read(ImageRef(*source.images[channel]), box)
        return self._converted.read(source.row, channel, box)

    def mask(self, source: TileSource, box: Box) -> Pixels | None:
        """Where the tile is valid on a box; None where it has no mask."""
        # Often one file masks every tile of a camera, so whole masks are kept.
        return None if source.mask is None else self._masks(source.mask)[box.slices]

    def valid(self, source: TileSource, channel: int, box: Box) -> tuple[Pixels, Pixels | None]:
        """The voxels of a box, and which are valid, None for all: those of the mask that are
        finite. What is not finite is 0."""
        pixels, mask = self.pixels(source, channel, box), self.mask(source, box)
        if pixels.dtype.kind == "f":
            finite = np.isfinite(pixels)
            if not finite.all():
                pixels = np.where(finite, pixels, np.zeros((), pixels.dtype))
                mask = finite if mask is None else mask & finite
        return pixels, mask


def _read_whole_mask(ref: Ref) -> Pixels:
    return images.read(ImageRef(*ref)) > 0
