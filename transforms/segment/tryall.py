"""A figure per site with what each method would find, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from warpbeam.kernels.segment.background import smooth
from warpbeam.kernels.segment.contact import contact_sheet
from warpbeam.kernels.segment.plate import ObjectSettings
from warpbeam.kernels.segment.threshold import METHODS, foreground
from warpbeam.transforms.segment.files import tryall_uri
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import Record
from warpbeam.transforms.storage.plate import Site, SiteKey
from warpbeam.transforms.storage.plate.images import read_image


class DrawAll:
    """Work of the stage `tryall`: one site. Payload: as that of `SegmentSite`."""

    def __init__(self, run: str, channel: str, settings: ObjectSettings) -> None:
        self._run, self._channel, self._settings = run, channel, settings

    def __call__(self, key: SiteKey, payload: Any) -> Record:
        site = Site.from_json(payload[0])
        image = smooth(
            read_image(site.images[site.channels.index(self._channel)]), self._settings.gaussian_px
        )
        masks: dict[str, np.ndarray[Any, Any] | None] = {}
        for method in METHODS:
            try:
                chosen = replace(self._settings.threshold, method=method)
                masks[method] = foreground(image, chosen)
            except ValueError:  # the figure says that there is none
                masks[method] = None
        png = bytes(cv2.imencode(".png", contact_sheet(image, masks))[1])
        store.write_bytes(tryall_uri(self._run, site.key), png)
        return {"bytes_read": image.nbytes, "bytes_written": len(png)}
