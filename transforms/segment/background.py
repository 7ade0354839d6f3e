"""The background of each channel of a well at one time: the median over its tiles."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from warpbeam.kernels.segment.background import median_image
from warpbeam.transforms.segment.files import background_uri, load_sites
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.images import CorruptImageError, together
from warpbeam.transforms.storage.ledger import Record
from warpbeam.transforms.storage.plate.images import read_image
from warpbeam.transforms.storage.plate.model import ChannelImage, Site

Group = tuple[str, str, int, str]

# One image is its own median, and nothing would be left of it.
_LEAST_IMAGES = 2


def group_of(site: Site, channel: str) -> Group:
    return (site.key.experiment, site.key.well, site.key.timepoint, channel)


def list_groups(run: str) -> Iterator[Unit]:
    """A unit per channel of a well at one time: its images and their versions."""
    groups: dict[Group, list[Any]] = {}
    for site in load_sites(run):
        for image in site.images:
            groups.setdefault(group_of(site, image.channel), []).append([image, site.version])
    yield from groups.items()


class MeasureBackground:
    """Work of the stage `background`: the median of some images, which have one shape.

    Payload: `[[image, version], …]`. An image that is corrupt is left out; its own site says so.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    def __call__(self, key: Group, payload: Any) -> Record:
        stack, corrupt = [], []
        for image, _ in payload:
            try:
                stack.append(read_image(ChannelImage(*image)))
            except CorruptImageError as problem:
                corrupt.append(problem)
        if len(stack) < _LEAST_IMAGES:
            raise together(corrupt) if corrupt else _single()
        buffer = io.BytesIO()
        np.save(buffer, median_image(stack))
        store.write_bytes(background_uri(self._run, key), buffer.getvalue())
        read = sum(image.nbytes for image in stack)
        return {"bytes_read": read, "bytes_written": buffer.tell()}


def _single() -> ValueError:
    return ValueError(
        "the background of a single image is the image itself: choose more tiles, or set "
        "background.correct=none"
    )


def load_background(run: str, group: Group) -> np.ndarray[Any, Any]:
    """The background that was measured.

    Raises:
        FileNotFoundError: there is none.
    """
    raw = store.read_bytes(background_uri(run, group))
    if raw is None:
        raise FileNotFoundError(f"no background of {group}: its stage failed")
    found: np.ndarray[Any, Any] = np.load(io.BytesIO(raw), allow_pickle=False)
    return found
