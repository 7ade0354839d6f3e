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

UNITS = {symbol: name for name, symbol in SYMBOLS.items()} | {"µm": "micrometer"}


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


def spacing(
    array: dict[str, Any], group: dict[str, Any]
) -> tuple[tuple[float, ...], tuple[str, ...]] | None:
    """Sizes of voxels and the symbols of their units, slowest axis first, of the finest level.

    There is no standard: what warpbeam and COSEM write (`transform`, also in the group's
    `multiscales`), Fiji (`resolution`, `units`) and the N5 viewer (`pixelResolution`).

    Args:
        array, group: the attributes of both.
    """
    for attributes in (array, _first_dataset(group), group):
        if (sizes := attributes.get("transform", {}).get("scale")) is not None:
            units = attributes["transform"].get("units") or ()
            turned = attributes["transform"].get("ordering", "C") == "F"
        elif (given := attributes.get("pixelResolution")) is not None:
            sizes = given["dimensions"] if isinstance(given, dict) else given
            units = [given.get("unit", "um") if isinstance(given, dict) else "um"] * len(sizes)
            turned = True
        else:
            sizes, units, turned = attributes.get("resolution"), attributes.get("units", ()), True
        if sizes:
            found = tuple(map(float, sizes)), tuple(map(str, units))
            return (found[0][::-1], found[1][::-1]) if turned else found
    return None


def _first_dataset(group: dict[str, Any]) -> dict[str, Any]:
    multiscale: dict[str, Any] = next(iter(group.get("multiscales") or ()), {})
    first: dict[str, Any] = next(iter(multiscale.get("datasets") or ()), {})
    return first


def voxel_um(array: dict[str, Any], group: dict[str, Any]) -> tuple[float, ...] | None:
    """(z, y, x) size of a voxel, or yx, where its unit is known; see `spacing`."""
    sizes, units = spacing(array, group) or ((), ())
    factors = [1e6 * ngff.METRES.get(UNITS.get(u, u), 0.0) for u in units[-3:]]
    if not factors or len(units) != len(sizes) or not all(factors):
        return None
    return tuple(s * f for s, f in zip(sizes[-3:], factors, strict=True))


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
