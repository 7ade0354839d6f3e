"""Tiles are copied once into chunked storage when their files cannot be read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import images
from warpbeam.transforms.storage.images import ImageRef
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tile_store import TileStore
from warpbeam.transforms.tiles import TileSource, load_sources


def usable(run: RunFolder, converted: Ledger) -> Iterator[TileSource]:
    """The tiles whose pixels can be had: a tile that failed to convert is left out."""
    done = {key for key, _ in converted.records()}
    return (s for s in load_sources(run) if s.direct or s.key in done)


class ConvertTile:
    """Work of the stage `convert`: one tile, all channels.

    Payload: `[row, images, version]` of a `TileSource`.
    """

    def __init__(self, run: RunFolder, shape: tuple[int, ...], dtype: str) -> None:
        self._run, self._shape, self._dtype = run, shape, dtype

    def setup(self) -> None:
        self._store = TileStore.create(self._run.converted, self._shape, self._dtype)

    def __call__(self, key: TileKey, payload: Any) -> Record:
        row, refs, _ = payload
        total = 0
        for channel, ref in enumerate(refs):
            total += self._store.write(row, channel, images.read(ImageRef(*ref)))
        return {"bytes_read": total, "bytes_written": total}
