"""A stored volume -> one OME-TIFF, plane by plane."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.volume import Level, Volume, open_volume

_TILE = 256
_AXES = "TCZYX"


def write_ome_tiff(source: str, target: str) -> int:
    """Writes level 0 of a volume as a tiled BigTIFF of compressed planes, whole or not at all.

    Planes are read by the depth of a chunk, so that each chunk is decoded once; no more of the
    volume is in memory. Buckets get the file from a local copy.

    Returns:
        The bytes of its voxels.
    """
    volume = open_volume(source)
    local = store.local_path(target)
    if local is None:
        with tempfile.TemporaryDirectory() as folder:
            made = os.path.join(folder, "volume.ome.tif")
            written = _write(volume, made)
            _upload(made, target)
        return written
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(f"{local.name}.partial")
    written = _write(volume, str(partial))
    os.replace(partial, local)
    return written


def _write(volume: Volume, path: str) -> int:
    level, spec = volume.level(0), volume.spec
    # a random identity would make two runs differ
    metadata: dict[str, Any] = {"axes": _AXES, "Channel": {"Name": list(spec.channel_names)},
                                "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, spec.uri))}  # fmt: skip
    if spec.unit:
        for axis, size in zip("ZYX", spec.voxel, strict=True):
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = _symbol(spec.unit)
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        file.write(
            _tiles(level, spec.chunk[2]), shape=level.shape, dtype=level.dtype,
            tile=(_TILE, _TILE), compression="zlib", photometric="minisblack", metadata=metadata,
        )  # fmt: skip
    return int(np.prod(level.shape)) * level.dtype.itemsize


def _tiles(level: Level, depth: int) -> Iterator[np.ndarray[Any, Any]]:
    for plane in _planes(level, depth):
        for y in range(0, plane.shape[0], _TILE):
            for x in range(0, plane.shape[1], _TILE):
                yield plane[y : y + _TILE, x : x + _TILE]


def _planes(level: Level, depth: int) -> Iterator[np.ndarray[Any, Any]]:
    times, channels, planes, *plane = level.shape
    for t in range(times):
        for c in range(channels):
            for z in range(0, planes, depth):
                start, stop = (t, c, z, 0, 0), (t + 1, c + 1, min(z + depth, planes), *plane)
                yield from level.read_once(Box(start, stop))[0, 0]


def _symbol(unit: str) -> str:
    """The symbol that OME-TIFF has for a long unit name."""
    return {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm"}.get(unit, unit)


def _upload(path: str, target: str) -> None:
    import fsspec  # type: ignore[import-untyped]

    filesystem, inner = fsspec.core.url_to_fs(target)
    filesystem.put_file(path, inner)
