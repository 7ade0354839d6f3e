"""Tiles with even contrast: the range of grey values that all of them share, and what is drawn."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import Contrast, Range, evened, grey_range, support
from warpbeam.kernels.shading.correction import Shading
from warpbeam.transforms.convert import usable
from warpbeam.transforms.flatfield import fixed_choice
from warpbeam.transforms.grey import Image, grey_sample, with_nan, within_type
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.shading import ShadingReader, shading_fingerprint
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource

# Tiles that stand for all, and of each every so-manieth pixel that is looked at.
MOST_TILES, _THIN = 64, 4


@dataclass(frozen=True)
class ContrastSettings:
    """How contrast is evened out; see `kernels.shading.contrast`."""

    how: Contrast
    size_px: int


def list_ranges(run: RunFolder, converted: Ledger, channels: int) -> Iterator[Unit]:
    """A unit per channel; its payload changes with the tiles that are sampled, and with their
    shading."""
    sample = [(source.key, source.version) for source in _sample(run, converted)]
    mark = digest([sample, shading_fingerprint(run, "flat", "dark", "gains")])
    return ((("channel", channel), mark) for channel in range(channels))


def _sample(run: RunFolder, converted: Ledger) -> list[TileSource]:
    return fixed_choice(usable(run, converted))[:MOST_TILES]


class MeasureRange:
    """Work of the stage `contrast`: the range of one channel, within that of the pixels' type."""

    def __init__(self, run: RunFolder, converted: Ledger, dtype: str) -> None:
        self._run, self._converted, self._dtype = run, converted, np.dtype(dtype)

    def setup(self) -> None:
        self._tiles, self._shading = TileReader(self._run), ShadingReader(self._run)

    def __call__(self, key: Key, payload: Any) -> Record:
        channel, seen = key[1], [np.zeros(0, np.float32)]
        for source in _sample(self._run, self._converted):
            shading = self._shading.of(TileKey(*source.key), channel)
            read = functools.partial(_corrected, self._tiles, source, channel, shading)
            with contextlib.suppress(CorruptImageError):  # whoever draws it says so
                seen.append(grey_sample(read, source.shape)[::_THIN])
        low, high = within_type(grey_range(np.concatenate(seen)), self._dtype)
        store.write_json(self._run.grey_range(channel), [low, high])
        return {"low": low, "high": high}


def _corrected(
    tiles: TileReader, source: TileSource, channel: int, shading: Shading, box: Box
) -> Image:
    """The pixels of a box of a tile as they compare with others, NaN where there is no data."""
    pixels, mask = tiles.valid(source, channel, box)
    return with_nan(shading.correct(pixels, box), mask)


class EvenTiles:
    """Reads tiles with even contrast; one per worker."""

    def __init__(self, run: RunFolder, tiles: TileReader, settings: ContrastSettings) -> None:
        self._run, self._tiles = run, tiles
        self._how, self._size = settings.how, settings.size_px
        self._range = functools.cache(self._read_range)

    def read(self, source: TileSource, channel: int, shading: Shading, box: Box) -> Image:
        """The pixels of a box of a tile, NaN where there is no data."""
        around = support(box, self._how, self._size) & Box.of_shape(source.shape)
        corrected = _corrected(self._tiles, source, channel, shading, around)
        even = evened(corrected, self._how, self._size, self._range(channel), around.start)
        return even[box.slices_in(around)]

    def _read_range(self, channel: int) -> Range:
        low, high = store.read_json(self._run.grey_range(channel))
        return low, high
