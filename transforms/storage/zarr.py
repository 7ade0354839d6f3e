"""Volumes as OME-Zarr: sharded Zarr v3 with NGFF 0.5, or Zarr v2 with NGFF 0.4."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorstore as ts

from warpbeam.transforms.storage import ngff
from warpbeam.transforms.storage.volume_spec import AXES, LevelSpec, VolumeSpec


def array_spec(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    """The TensorStore driver and metadata of one level's array, without its address."""
    if spec.format == "zarr2":
        return {"driver": "zarr", "metadata": _metadata_v2(spec, level)}
    return {"driver": "zarr3", "metadata": _metadata_v3(spec, level)}


def _metadata_v3(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": spec.compression}},
    ]
    if level.shard != level.chunk:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": list(level.chunk),
            "codecs": codecs,
            "index_codecs": index,
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    grid = {"name": "regular", "configuration": {"chunk_shape": list(level.shard)}}
    return {
        "shape": list(level.shape),
        "data_type": spec.dtype,
        "chunk_grid": grid,
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": codecs,
        "fill_value": _fill(spec),
        "dimension_names": list(AXES),
    }


def _metadata_v2(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    return {
        "shape": list(level.shape),
        "chunks": list(level.chunk),
        "dtype": np.dtype(spec.dtype).newbyteorder("<").str,
        "compressor": {"id": "zstd", "level": spec.compression},
        "dimension_separator": "/",
        "fill_value": _fill(spec),
        "order": "C",
    }


def _fill(spec: VolumeSpec) -> float:
    return float(spec.fill) if spec.dtype == "float32" else int(spec.fill)


def group_files(spec: VolumeSpec) -> dict[str, Any]:
    """The metadata files of the image's group, as key -> JSON."""
    version = spec.ngff or "0.5"
    image = ngff.Image(
        version=version,
        name=PurePosixPath(spec.uri).name.split(".")[0] or "image",
        axes=tuple(
            ngff.Axis(a, spec.unit if ngff.TYPE_OF_AXIS[a] == "space" else None) for a in AXES
        ),
        datasets=tuple(
            ngff.half_voxel_dataset(level.path, spec.voxel, spec.origin, level.factor)
            for level in spec.levels
        ),
        channels=() if spec.labels_of else ngff.default_channels(spec.channel_names, spec.dtype),
        method=spec.method,
    )
    attributes = ngff.label_image(image, spec.labels_of) if spec.labels_of else image.attributes()
    return ngff.group_files(version, attributes | {"warpbeam": spec.to_json()})


def as_tczyx(store: ts.TensorStore) -> ts.TensorStore:
    """The arrays are stored in that order."""
    return store
