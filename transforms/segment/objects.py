"""One site -> its mask, and a row per object: read once, segmented once.

What is found goes to files of the run alone. The database is written by a later stage, so
that nothing is segmented again because a server was away, and a site that fails here never
has a row there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.segment.background import How, correct
from warpbeam.kernels.segment.cellpose import CellposeSettings
from warpbeam.kernels.segment.crops import crops
from warpbeam.kernels.segment.intensity import intensity_properties
from warpbeam.kernels.segment.plate import ObjectSettings
from warpbeam.kernels.segment.puncta import PunctaSettings, find_puncta
from warpbeam.kernels.segment.regions import Regions
from warpbeam.kernels.segment.shape import shape_properties
from warpbeam.transforms.segment.background import group_of, load_background
from warpbeam.transforms.segment.files import (
    crops_uri,
    load_sites,
    mask_uri,
    objects_uri,
    puncta_uri,
)
from warpbeam.transforms.segment.finder import Finder
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.ledger import Ledger, Record, key_name
from warpbeam.transforms.storage.plate import Site, SiteKey
from warpbeam.transforms.storage.plate.hcs import PlateSettings, write_image, write_labels
from warpbeam.transforms.storage.plate.images import read_image

# Masks are mostly empty: longer strips than tifffile's of 256 KB cost less to write.
_STRIP_ROWS = 512
Images = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class SegmentSettings:
    """What is done to each site.

    Attributes:
        channel: in which objects are found.
        objects: what an object is.
        background: how the background is taken out.
        puncta_channels: in which spots are looked for.
        puncta: what a spot is.
        tiff: write masks as TIFF.
        crop: side of the square that is cut out around each object, pixels; 0 for none.
        network: finds the objects in place of a threshold; None for the threshold.
    """

    channel: str
    objects: ObjectSettings
    background: How
    puncta_channels: tuple[str, ...]
    puncta: PunctaSettings
    tiff: bool
    crop: int = 0
    network: CellposeSettings | None = None


def list_sites(run: str, backgrounds: Ledger | None) -> Iterator[Unit]:
    """A unit per site: the site, and the marks of its backgrounds."""
    marks = backgrounds.done() if backgrounds is not None else {}
    for site in load_sites(run):
        groups = (group_of(site, channel) for channel in site.channels)
        yield site.key, [site.to_json(), [marks.get(key_name(group)) for group in groups]]


class SegmentSite:
    """Work of the stage `segment`: one site.

    Payload: `[site, marks of its backgrounds]`. `plate` is None where no OME-Zarr is wanted.
    """

    def __init__(self, run: str, settings: SegmentSettings, plate: PlateSettings | None) -> None:
        self._run, self._settings, self._plate = run, settings, plate
        self._find = Finder(settings.objects, settings.network)

    def __call__(self, key: SiteKey, payload: Any) -> Record:
        site, chosen = Site.from_json(payload[0]), self._settings
        raw = read_site(site)
        images = corrected(self._run, site, raw, chosen.background)
        regions = self._find(images[chosen.channel])
        columns = measure(regions, images, chosen.channel)
        written = self._write_masks(site, regions, raw)
        written += tables.write_columns(objects_uri(self._run, site.key), columns)
        if chosen.crop:
            written += write_crops(crops_uri(self._run, site.key), raw, columns, chosen.crop)
        spots = 0
        if chosen.puncta_channels:
            table = measure_puncta(regions, images, chosen)
            written += tables.write_columns(puncta_uri(self._run, site.key), table)
            spots = len(table["cell"])
        return {
            "bytes_read": sum(image.nbytes for image in raw.values()),
            "bytes_written": written,
            "objects": regions.count,
            "puncta": spots,
        }

    def _write_masks(self, site: Site, regions: Regions, raw: Images) -> int:
        labels, written = regions.image(), 0
        if self._settings.tiff:
            uri = mask_uri(self._run, site.key, self._settings.channel)
            written += write_mask(uri, labels)
        if self._plate is not None:
            written += write_labels(self._run, self._plate, site, labels)
            for channel, pixels in raw.items():
                written += write_image(self._run, self._plate, site, channel, pixels)
        return written


def read_site(site: Site) -> Images:
    """The image of every channel.

    Raises:
        ValueError: a file is not as it was when the plate was read.
    """
    found = {image.channel: read_image(image) for image in site.images}
    for channel, pixels in found.items():
        if pixels.shape != site.shape:
            raise ValueError(f"channel {channel} has become {pixels.shape}, was {site.shape}")
    return found


def corrected(run: str, site: Site, raw: Images, how: How) -> Images:
    """The images without their backgrounds."""
    if how == "none":
        return raw
    return {
        channel: correct(pixels, load_background(run, group_of(site, channel)), how)
        for channel, pixels in raw.items()
    }


def measure(regions: Regions, images: Images, segmented: str) -> dict[str, np.ndarray[Any, Any]]:
    """A row per object: `label`, shape, the centroid weighted by the segmented channel, and
    the grey values of each channel as `CHANNEL:intensity_mean` and so on."""
    columns: dict[str, np.ndarray[Any, Any]] = {"label": np.arange(1, regions.count + 1)}
    columns |= shape_properties(regions)
    for channel, pixels in images.items():
        greys = intensity_properties(regions, pixels)
        weighted = {k: greys.pop(k) for k in ("centroid_weighted_y", "centroid_weighted_x")}
        if channel == segmented:
            columns |= weighted
        columns |= {f"{channel}:{name}": values for name, values in greys.items()}
    return columns


def measure_puncta(
    regions: Regions, images: Images, settings: SegmentSettings
) -> dict[str, np.ndarray[Any, Any]]:
    """A row per spot: `channel`, `cell`, shape, and the grey values of each channel."""
    parts = []
    for channel in settings.puncta_channels:
        spots, columns = find_puncta(regions, images[channel], settings.puncta)
        table = {"channel": np.full(spots.count, channel), **columns}
        for measured, pixels in images.items():
            greys = intensity_properties(spots, pixels)
            table |= {f"{measured}:{k}": v for k, v in greys.items() if k.startswith("intensity")}
        parts.append(table)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_crops(
    uri: str, images: Images, columns: dict[str, np.ndarray[Any, Any]], side: int
) -> int:
    """Stores the squares around the objects as a TIFF `[object, channel, y, x]`, whole or not at
    all; returns its bytes. Without an object there is no file."""
    if not len(columns["label"]):
        store.delete_prefix(uri)
        return 0
    made = crops(list(images.values()), columns["centroid_y"], columns["centroid_x"], side)
    metadata = {"axes": "QCYX", "channels": list(images)}
    return _write_tiff(uri, made, photometric="minisblack", metadata=metadata)


def write_mask(uri: str, labels: np.ndarray[Any, Any]) -> int:
    """Stores a label image as a TIFF with zstd, whole or not at all; returns its bytes."""
    return _write_tiff(uri, labels, rowsperstrip=_STRIP_ROWS)


def _write_tiff(uri: str, pixels: np.ndarray[Any, Any], **layout: Any) -> int:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, compression="zstd", compressionargs={"level": 1}, **layout)
    store.write_bytes(uri, buffer.getvalue())
    return buffer.tell()
