"""One block -> small pieces, cut along what may be a sheet between two objects.

Pieces end where the block ends: what parts the two halves of one is no evidence of a sheet, and
they are joined with all the others, see `joins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.catchment import catchments
from warpbeam.kernels.segment.sheets import Traces, Weights, halo, traces, weights
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.sampling import sample_boxes
from warpbeam.transforms.segment.volume.frame import BlockFrame, level_uri
from warpbeam.transforms.segment.volume.label import numbered_on, write_labels
from warpbeam.transforms.segment.volume.reading import SAMPLE, SAMPLES, GreyReader, GreySettings
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import Key, Record
from warpbeam.transforms.storage.run_folder import RunFolder

# Evidence is smoothed so much, in its own sigmas, before it is cut: pieces of some hundred voxels.
PIECE_SIGMAS = 2 / 3


@dataclass(frozen=True)
class SheetSettings:
    """What evidence of a sheet is.

    Attributes:
        grey: which grey values are looked at.
        sigma_px: see `kernels.segment.sheets.traces`; zyx.
        dark: the same.
        flat: every section is looked at by itself.
    """

    grey: GreySettings
    sigma_px: tuple[float, float, float]
    dark: bool
    flat: bool

    @property
    def sigma(self) -> tuple[float, ...]:
        """Along the axes that are looked at together."""
        return self.sigma_px[1:] if self.flat else self.sigma_px


class SheetReader:
    """Reads evidence of sheets; one per worker."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: SheetSettings) -> None:
        self._frame, self._settings = frame, settings
        self._grey = GreyReader(run, settings.grey)

    def evidence(self, box: Box, given: list[float]) -> np.ndarray[Any, Any]:
        """Of a box inside the volume, as it is in the whole volume; `given`: the weights."""
        return Weights(*given).evidence(self.traces(box))

    def traces(self, box: Box) -> Traces:
        chosen = self._settings
        reach = (0, *halo(chosen.sigma)) if chosen.flat else halo(chosen.sigma)
        around = box.pad(reach) & Box.of_shape(self._frame.shape)
        grey, inside = self._grey.read(around), box.slices_in(around)
        parts = grey if chosen.flat else [grey]
        found = [traces(part, chosen.sigma, dark=chosen.dark) for part in parts]
        columns = zip(*found, strict=True)
        return Traces(*(np.stack(column).reshape(grey.shape)[inside] for column in columns))


class FindWeights:
    """Work of the stage `threshold` where there is none: how evidence is weighed."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: SheetSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        reader = SheetReader(self._run, self._frame, self._settings)
        samples = [reader.traces(box) for box in sample_boxes(self._frame.shape, SAMPLE, SAMPLES)]
        found = weights(samples)
        store.write_json(level_uri(self._run), list(found))
        return {"bytes_read": sum(sample.bend.nbytes for sample in samples)}


class CutBlock:
    """Work of the stage `label` where all the volume is cut in pieces: one block with its halo."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: SheetSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def setup(self) -> None:
        self._reader = SheetReader(self._run, self._frame, self._settings)

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        box = self._frame.read_box(key.region)
        evidence = self._reader.evidence(box, payload[0])
        sigma = [s * PIECE_SIGMAS for s in self._settings.sigma]
        parts = evidence if self._settings.flat else [evidence]
        labels = numbered_on([catchments(part, sigma) for part in parts], box.shape)
        core = self._frame.grid.box(key.region).slices_in(box)
        found = write_labels(self._run, self._frame, key.region, labels, core)
        return {"bytes_read": evidence.nbytes, **found}
