"""Masks whose numbers are those of cells: the same at all times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from warpbeam.transforms.segment.database import list_segmented
from warpbeam.transforms.segment.files import mask_uri, tracked_uri
from warpbeam.transforms.segment.objects import write_mask
from warpbeam.transforms.segment.track import cell_numbers
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.images import ImageRef, read
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.plate import SiteKey


def list_tracked(run: str, segmented: Ledger, tracked: Ledger) -> Iterator[Unit]:
    """A unit per site of a well that was tracked; see `database.list_segmented`."""
    return (unit for unit in list_segmented(run, segmented, tracked) if unit[1][2] is not None)


class NumberCells:
    """Work of the stage `number`: the mask of one site."""

    def __init__(self, run: str, channel: str) -> None:
        self._run, self._channel = run, channel

    def __call__(self, key: SiteKey, payload: Any) -> Record:
        site = SiteKey(*key)
        labels = read(ImageRef(mask_uri(self._run, site, self._channel)))
        cells = np.concatenate([[0], cell_numbers(self._run, site)])
        numbers = cells.astype(np.min_scalar_type(max(int(cells.max()), 256)))
        written = write_mask(tracked_uri(self._run, site, self._channel), numbers[labels])
        return {"bytes_read": labels.nbytes, "bytes_written": written}
