"""Voxels of the two volumes at any level; NaN = no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.register.reduce import mean_of_known
from warpbeam.transforms.convert import usable
from warpbeam.transforms.keys import NodesKey
from warpbeam.transforms.register.frame import Frame, reduced_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource, load_sources

Volume = Float32[np.ndarray, "z y x"]


@dataclass(frozen=True)
class VolumeSettings:
    """What of the fixed and of the moving volume is compared.

    Attributes:
        channels: one of each.
        background: grey value that means "no data"; None for none.
        least_known: chunks of which a smaller share is known in the fixed volume are left out.
    """

    channels: tuple[int, int]
    background: float | None
    least_known: float = 0.0


class VolumeReader:
    """Reads the volumes of a run; one per worker."""

    def __init__(self, run: RunFolder, settings: VolumeSettings) -> None:
        self._run, self._settings = run, settings
        self._tiles = TileReader(run)
        self._sources: dict[int, TileSource] = {s.row: s for s in load_sources(run)}

    def full(self, which: int, box: Box) -> Volume:
        """The voxels of a box inside a volume."""
        source = self._sources[which]
        pixels = self._tiles.pixels(source, self._settings.channels[which], box)
        out = pixels.astype(np.float32)
        known = self._tiles.mask(source, box)
        if known is not None:
            out[~known] = np.nan
        if self._settings.background is not None:
            out[pixels == self._settings.background] = np.nan
        out[np.isinf(out)] = np.nan
        return out

    def read(self, frame: Frame, which: int, level: int, box: Box) -> Volume:
        """The voxels of a box of a level, which may leave the volume."""
        extent = Box.of_shape(frame.shape(which, level))
        out = np.full(box.shape, np.nan, np.float32)
        inside = box & extent
        if inside:
            if any(k > 1 for k in frame.factors(which, level)):
                part = fields.load(reduced_uri(self._run, which, level)).read(inside)
            else:
                part = self.full(which, inside)
            out[inside.slices_in(box)] = part
        return out


def list_blocks(run: RunFolder, frame: Frame, converted: Ledger) -> Iterator[Unit]:
    """A unit per block of voxels of each volume. Payload: a mark of the volume."""
    for source in usable(run, converted):
        shape = frame.shapes[source.row]
        for block in BlockGrid(shape, (frame.reduced_block,) * 3).indices():
            yield NodesKey(source.row, block), [source.version]


class ReduceBlock:
    """Work of the stage `reduce`: one block of a volume at all levels."""

    def __init__(self, run: RunFolder, frame: Frame, settings: VolumeSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def setup(self) -> None:
        self._reader = VolumeReader(self._run, self._settings)

    def __call__(self, key: NodesKey, payload: Any) -> Record:
        frame, which = self._frame, key.section
        side = frame.reduced_block
        box = BlockGrid(frame.shapes[which], (side,) * 3).box(key.block)
        volume = self._reader.full(which, box)
        known = float(np.isfinite(volume).mean())
        written = 0
        for level in frame.levels:
            factors = frame.factors(which, level)
            if all(k == 1 for k in factors):
                continue
            small = mean_of_known(volume, factors)
            start = [a // k for a, k in zip(box.start, factors, strict=True)]
            chunk = [side // k for k in factors]
            array = fields.create(
                reduced_uri(self._run, which, level), frame.shape(which, level), chunk
            )
            written += array.write(Box.of_shape(small.shape, start), small)
        return {"bytes_read": volume.nbytes, "bytes_written": written, "known": known}
