"""OME-Zarr plates as they are written: a plate per experiment, with labels beside the images.

OUT/plates/EXPERIMENT.ome.zarr/A/1/0/           images of tile 1 of well A1, tczyx
                                    labels/cells/   its objects, the same levels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import ngff, store, volume
from warpbeam.transforms.storage.plate.model import Plate, Site
from warpbeam.transforms.storage.plate.selection import row_name, well_place
from warpbeam.transforms.storage.volume_spec import NGFF_OF_FORMAT, VolumeSpec, choose_levels

LABELS = "cells"


@dataclass(frozen=True)
class PlateSettings:
    """How plates are stored; yx sizes, see `VolumeSpec`."""

    format: str
    chunk: tuple[int, int]
    shard: tuple[int, int]
    compression: int
    pyramid: bool
    voxel_um: tuple[float, ...] | None
    dtype: str
    channels: tuple[str, ...]
    times: tuple[int, ...]

    def of_any_time(self) -> dict[str, Any]:
        """All but the times: these may grow."""
        return {name: value for name, value in asdict(self).items() if name != "times"}


# An attribute of a plate: the numbers of its times, which OME-Zarr counts from 0.
TIMEPOINTS = "warpbeam_timepoints"


def plate_uri(run: str, experiment: str) -> str:
    return store.join(run, "plates", f"{quote(experiment, safe=' ')}.ome.zarr")


def create_field(run: str, settings: PlateSettings, sites: Sequence[Site]) -> None:
    """The arrays of one tile at all its times: images and labels."""
    first = sites[0]
    shape = tuple(max(n) for n in zip(*(s.shape for s in sites), strict=True))
    image = _image_spec(_field_uri(run, first), settings, shape)
    labels = _labels_spec(image)
    volume.lengthen(image)
    version = NGFF_OF_FORMAT[settings.format] or ""
    _write_group(store.join(image.uri, "labels"), version, ngff.labels_group(version, [LABELS]))
    volume.lengthen(labels)


def create_plate(run: str, settings: PlateSettings, plate: Plate, experiment: str) -> None:
    """The groups of a plate and of its wells; written last, so that a plate is complete."""
    version = NGFF_OF_FORMAT[settings.format] or ""
    sites = [site for site in plate.sites if site.key.experiment == experiment]
    root = plate_uri(run, experiment)
    wells = {well: list(group) for well, group in groupby(sites, key=lambda s: s.key.well)}
    for well, found in wells.items():
        tiles = sorted({site.key.tile for site in found})
        images = [{"path": str(tile), "acquisition": 0} for tile in tiles]
        place = well_place(well, root)
        _write_group(store.join(root, row_name(place[0])), version, {})
        _write_group(store.join(root, _well_path(well)), version,
                     ngff.in_version(version, {"well": {"images": images}}))  # fmt: skip
    places = [well_place(well, root) for well in wells]
    rows, columns = (sorted({p[axis] for p in places}) for axis in (0, 1))
    numbers = {TIMEPOINTS: list(settings.times)}
    _write_group(root, version, numbers | ngff.in_version(version, {"plate": {
        "name": experiment,
        "version": version,
        "acquisitions": [{"id": 0}],
        "rows": [{"name": row_name(r)} for r in rows],
        "columns": [{"name": str(c + 1)} for c in columns],
        "wells": [
            {"path": _well_path(well), "rowIndex": rows.index(r), "columnIndex": columns.index(c)}
            for well, (r, c) in zip(wells, places, strict=True)
        ],
        "field_count": max(len({s.key.tile for s in found}) for found in wells.values()),
    }}))  # fmt: skip


def write_image(
    run: str, settings: PlateSettings, site: Site, channel: str, pixels: np.ndarray
) -> int:
    """One channel of one site, with its levels; returns the bytes before compression."""
    at = (settings.times.index(site.key.timepoint), settings.channels.index(channel))
    return _write_plane(_field_uri(run, site), at, pixels)


def write_labels(run: str, settings: PlateSettings, site: Site, labels: np.ndarray) -> int:
    """The objects of one site, with their levels; returns the bytes before compression."""
    uri = store.join(_field_uri(run, site), "labels", LABELS)
    at = (settings.times.index(site.key.timepoint), 0)
    return _write_plane(uri, at, labels.astype(np.uint32))


def _write_plane(uri: str, at: tuple[int, int], pixels: np.ndarray) -> int:
    opened, total = volume.open_volume(uri), 0
    array = pixels[None, None, None]
    for k in range(opened.levels):
        level = opened.level(k)
        if k:
            array = volume.downsample(array, (1, 1, *opened.spec.factors[k - 1]),
                                      opened.spec.method)  # fmt: skip
        whole = array
        if array.shape[2:] != level.shape[2:]:  # another site of this tile is larger
            whole = np.zeros((1, 1, *level.shape[2:]), level.dtype)
            whole[..., : array.shape[3], : array.shape[4]] = array
        box = Box((*at, 0, 0, 0), (at[0] + 1, at[1] + 1, *level.shape[2:]))
        total += level.write_shards(box, whole)
    return total


def _field_uri(run: str, site: Site) -> str:
    key = site.key
    return store.join(plate_uri(run, key.experiment), _well_path(key.well), str(key.tile))


def _well_path(well: str) -> str:
    row, column = well_place(well, "well")
    return f"{row_name(row)}/{column + 1}"


def _image_spec(uri: str, settings: PlateSettings, shape: tuple[int, ...]) -> VolumeSpec:
    size = (len(settings.times), len(settings.channels), 1, *shape)
    chunk = (1, 1, 1, *settings.chunk)
    voxel = (1.0, *(settings.voxel_um or (1.0, 1.0)))
    factors = choose_levels(size, chunk, voxel) if settings.pyramid else ()
    return VolumeSpec(
        uri, size, settings.dtype, chunk, (1, 1, 1, *settings.shard), settings.format,
        voxel=voxel, unit="micrometer" if settings.voxel_um else None, factors=factors,
        channels=settings.channels, compression=settings.compression,
    )  # fmt: skip


def _labels_spec(image: VolumeSpec) -> VolumeSpec:
    from dataclasses import replace

    return replace(
        image, uri=store.join(image.uri, "labels", LABELS), dtype="uint32", method="mode",
        shape=(image.shape[0], 1, *image.shape[2:]), channels=(), labels_of="../../",
    )  # fmt: skip


def _write_group(uri: str, version: str, attributes: dict[str, object]) -> None:
    for name, value in ngff.group_files(version, attributes).items():
        store.write_json(store.join(uri, name), value)
