"""The shading that all tiles of a channel share, estimated from a sample of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading
from warpbeam.kernels.shading.flatfield import ShadingSamples
from warpbeam.transforms.convert import usable
from warpbeam.transforms.shading import save_flat
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.images import CorruptImageError, together
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource

# More tiles hardly improve a smooth field, and one worker reads them all.
MOST_TILES = 512
# No objective darkens the corners by more: a wider field is the tiles' content.
_MOST_SPREAD = 2.5
# Planes of a three-dimensional tile that stand for all.
_MOST_PLANES = 5


def list_channels(run: RunFolder, converted: Ledger, channels: int) -> Iterator[Unit]:
    """A unit per channel; its payload changes with the tiles that are sampled."""
    sampled = digest([(source.key, source.version) for source in _sample(run, converted)])
    return ((("channel", channel), sampled) for channel in range(channels))


def _sample(run: RunFolder, converted: Ledger) -> list[TileSource]:
    """A fixed choice that does not depend on the order or the number of the other tiles."""
    found = fixed_choice(usable(run, converted))
    shape = found[0].shape[-2:] if found else None
    return [source for source in found if source.shape[-2:] == shape][:MOST_TILES]


def fixed_choice(sources: Iterable[TileSource]) -> list[TileSource]:
    """Tiles in an order that is as good as random, and which those that come or go leave as it
    is."""
    return sorted(sources, key=lambda s: hashlib.blake2b(repr(s.key).encode()).digest())


class EstimateFlatField:
    """Work of the stage `flatfield`: one channel, tile after tile in constant memory."""

    def __init__(
        self, run: RunFolder, converted: Ledger, *, dark: bool, plausible_only: bool
    ) -> None:
        self._run, self._converted, self._dark = run, converted, dark
        self._plausible_only = plausible_only

    def setup(self) -> None:
        self._tiles = TileReader(self._run)

    def __call__(self, key: Key, payload: Any) -> Record:
        channel = key[1]
        sources = _sample(self._run, self._converted)
        height, width = sources[0].shape[-2:]
        samples, corrupt = ShadingSamples((height, width)), []
        for source in sources:
            try:
                samples.update(self._plane(source, channel), repr(source.key))
            except CorruptImageError as problem:  # whoever draws the tile fails for it
                corrupt.append(problem)
        if len(corrupt) == len(sources):
            raise together(corrupt)
        shading = samples.estimate(dark=None if self._dark else 0.0)
        flat = shading.flat
        spread = 1.0 if flat is None else float(flat.max() / flat.min())
        if self._plausible_only and spread > _MOST_SPREAD:
            shading = Shading()
        save_flat(self._run, channel, shading)
        return {
            "tiles": len(sources) - len(corrupt),
            "brightest_to_darkest": spread,
            "dark": shading.dark,
            "used": shading.flat is not None,
        }

    def _plane(self, source: TileSource, channel: int) -> np.ndarray[Any, Any]:
        """The tile, or the mean of some of its planes; NaN where it is masked."""
        planes = []
        for box in _planes(source.shape):
            pixels = self._tiles.pixels(source, channel, box).astype(np.float32)
            mask = self._tiles.mask(source, box)
            if mask is not None:
                pixels[~mask] = np.nan
            planes.append(pixels.reshape(pixels.shape[-2:]))
        return planes[0] if len(planes) == 1 else np.mean(planes, axis=0)


def _planes(shape: tuple[int, ...]) -> list[Box]:
    if len(shape) == 2:
        return [Box.of_shape(shape)]
    chosen = np.unique(np.linspace(0, shape[0] - 1, _MOST_PLANES).round().astype(int))
    return [Box.of_shape((1, *shape[1:]), (z, 0, 0)) for z in chosen.tolist()]
