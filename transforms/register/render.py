"""The moving volume and its map -> whole shards in the frame of the fixed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.warp.image import needed, warp_image
from warpbeam.kernels.warp.source import Source
from warpbeam.transforms.canvas import load_canvas
from warpbeam.transforms.drawn import brightness, drawn, sampled
from warpbeam.transforms.keys import ShardKey
from warpbeam.transforms.reach import nodes_around, seen_by
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import displacements, volume
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, load_sources


@dataclass(frozen=True)
class DrawSettings:
    """How the moving volume is drawn; see `kernels.warp.image`.

    Attributes:
        interpolation: "nearest", "linear" or "cubic".
        background: grey value where it is not.
    """

    interpolation: str
    background: float


def list_shards(run: RunFolder, before: Ledger) -> Iterator[Unit]:
    """A unit per level-0 shard. Payload: fingerprints of the map and of the moving volume."""
    canvas, marks = load_canvas(run), before.fingerprint()
    *_, moving = load_sources(run)
    for block in canvas.grid.indices():
        yield ShardKey(0, block), [marks, canvas.shape, moving]


class DrawShard:
    """Work of the stage `render`: one whole level-0 shard and the levels inside it.

    `uri` is of the map from the volume's voxels to those of the last source of the run.
    """

    def __init__(self, run: RunFolder, settings: DrawSettings, uri: str) -> None:
        self._run, self._settings, self._uri = run, settings, uri

    def setup(self) -> None:
        self._tiles = TileReader(self._run)

    def __call__(self, key: ShardKey, payload: Any) -> Record:
        *_, moving = payload
        canvas, given = load_canvas(self._run), self._settings
        target = volume.open_volume(self._run.volume)
        box = canvas.grid.box(key.block)
        block = Box(box.start[2:], box.stop[2:])
        stored = displacements.load(self._uri)
        m = stored.read(nodes=nodes_around(stored.lattice, block))
        extent = Box.of_shape(moving.shape)
        window = needed(m, block, extent, given.interpolation)
        values = np.full(box.shape, given.background, target.level(0).dtype)
        read = 0
        for channel in range(box.start[1], box.stop[1]) if window else ():
            pixels = self._tiles.pixels(moving, channel, window)
            read += pixels.nbytes
            if pixels.dtype.kind == "f":  # what is no number would spread to its neighbours
                pixels = np.where(np.isfinite(pixels), pixels, pixels.dtype.type(given.background))
            values[0, channel - box.start[1]] = warp_image(
                Source(pixels, window, extent), m, block, given.interpolation,
                background=given.background, dtype=values.dtype,
            )  # fmt: skip
        seen = seen_by(m, moving.shape, block, "nearest")
        written = target.write_with_levels(box, values)
        grey = values[0][:, *sampled(block.shape)]
        return drawn(
            box, read=read, written=written, covered=float(seen.mean()) * box.size,
            quantiles=[brightness(part[seen]) for part in grey],
        )  # fmt: skip
