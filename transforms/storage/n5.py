"""Volumes as N5: `s0`, `s1`, … with the attributes that Neuroglancer, BDV and Fiji read.

N5 lists dimensions first-axis-fastest, so everything in its attributes is reversed: x, y, z.
The channel and time axes are stored only where there is more than one of either, because
BigDataViewer opens three-dimensional datasets alone. The position of each level is in its
`transform` attribute (in array order, as COSEM defined it): N5 itself has none.
"""

from __future__ import annotations

from typing import Any

import tensorstore as ts

from warpbeam.transforms.storage import ngff
from warpbeam.transforms.storage.volume_spec import AXES, LevelSpec, VolumeSpec

# N5 readers know units by their symbols.
SYMBOLS = {"nanometer": "nm", "micrometer": "um", "millimeter": "mm", "meter": "m"}


def array_spec(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    """The TensorStore driver and metadata of one level's array, without its address."""
    first = _first_axis(spec)
    metadata = {
        "dimensions": _reverse(level.shape[first:]),
        "blockSize": _reverse(level.chunk[first:]),
        "dataType": spec.dtype,
        "compression": {"type": "gzip", "level": spec.compression},
        "downsamplingFactors": _reverse((1, 1, *level.factor)[first:]),
        "transform": _transform(spec, level),
        **_space(spec, level.factor),
    }
    return {"driver": "n5", "metadata": metadata}


def group_files(spec: VolumeSpec) -> dict[str, Any]:
    """The metadata files of the pyramid's group, as key -> JSON."""
    first = _first_axis(spec)
    factors = [_reverse((1, 1, *level.factor)[first:]) for level in spec.levels]
    attributes = {
        "n5": "2.0.0",
        "downsamplingFactors": factors,
        **_space(spec, (1, 1, 1)),
        "warpbeam": spec.to_json(),
    }
    return {"attributes.json": attributes}


def as_tczyx(store: ts.TensorStore) -> ts.TensorStore:
    """Reverses the axes and adds t and c where they are not stored."""
    turned = store.T
    return turned if turned.rank == len(AXES) else turned[ts.newaxis, ts.newaxis]


def _first_axis(spec: VolumeSpec) -> int:
    return 2 if spec.shape[:2] == (1, 1) else 0


def _reverse(values: tuple[Any, ...]) -> list[Any]:
    return list(reversed(values))


def _space(spec: VolumeSpec, factor: tuple[int, ...]) -> dict[str, Any]:
    first = _first_axis(spec)
    pitch = (1.0, 1.0, *(s * f for s, f in zip(spec.voxel, factor, strict=True)))
    units = ("", "", *(3 * (_symbol(spec),)))
    return {
        "axes": _reverse(AXES[first:]),
        "resolution": _reverse(pitch[first:]),
        "units": _reverse(units[first:]),
    }


def _transform(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    first = _first_axis(spec)
    placed = ngff.half_voxel_dataset(level.path, spec.voxel, spec.origin, level.factor)
    return {
        "ordering": "C",
        "axes": list(AXES[first:]),
        "scale": list(placed.scale[first:]),
        "translate": list(placed.translation[first:]),
        "units": ["", "", *(3 * [_symbol(spec)])][first:],
    }


def _symbol(spec: VolumeSpec) -> str:
    return SYMBOLS.get(spec.unit, spec.unit) if spec.unit else ""
