"""Voxels of the volume that is segmented, and the grey value that parts objects from the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.solid import smooth, smoothing_halo
from warpbeam.kernels.segment.threshold import ThresholdSettings, global_threshold
from warpbeam.transforms.convert import usable
from warpbeam.transforms.sampling import sample_boxes
from warpbeam.transforms.segment.volume.frame import BlockFrame, level_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource, load_sources

# The histogram is that of so many boxes, or of the whole volume where it has no more.
SAMPLE = (16, 128, 128)
SAMPLES = 64


@dataclass(frozen=True)
class GreySettings:
    """Which grey values are looked at.

    Attributes:
        channel: of the image.
        sigma_px: smoothing before the threshold, zyx voxels; 0 for none.
    """

    channel: int
    sigma_px: tuple[float, ...]


class GreyReader:
    """Reads the volume of a run, smoothed; one per worker."""

    def __init__(self, run: RunFolder, settings: GreySettings) -> None:
        self._settings, self._tiles = settings, TileReader(run)
        self._source: TileSource = next(load_sources(run))

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """The voxels of a box inside the volume, as they are in the whole volume smoothed."""
        sigma = self._settings.sigma_px
        extent = Box.of_shape(self._source.shape)
        around = box.pad(smoothing_halo(sigma)) & extent
        pixels = self._tiles.pixels(self._source, self._settings.channel, around)
        return smooth(pixels, sigma)[box.slices_in(around)]


def one_threshold(run: RunFolder, converted: Ledger) -> Iterator[Unit]:
    """The single unit; none where the volume could not be read. Payload: a mark of the volume."""
    for source in usable(run, converted):
        yield ("threshold",), source.version


class FindThreshold:
    """Work of the stage `threshold`: one grey value for the whole volume."""

    def __init__(
        self, run: RunFolder, frame: BlockFrame, grey: GreySettings, settings: ThresholdSettings
    ) -> None:
        self._run, self._frame, self._grey, self._settings = run, frame, grey, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        read = 0
        if self._settings.method == "manual":
            level = self._settings.manual
        else:
            reader = GreyReader(self._run, self._grey)
            parts = [
                reader.read(box).ravel() for box in sample_boxes(self._frame.shape, SAMPLE, SAMPLES)
            ]
            values = np.concatenate(parts)
            read = values.nbytes
            level = global_threshold(values[np.isfinite(values)][None], self._settings)
        store.write_json(level_uri(self._run), level)
        return {"level": level, "bytes_read": read}
