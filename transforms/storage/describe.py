"""What a volume of any origin holds: OME-Zarr, plain Zarr, N5 or precomputed, as it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tensorstore as ts

from warpbeam.transforms.storage import n5, ngff
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.store import context, exists, join, kvstore_spec, read_json

VOLUMES = ("volume.ome.zarr", "volume.n5", "volume.precomputed")


@dataclass(frozen=True)
class FoundLevel:
    """One array as stored; everything in array order, slowest axis first.

    Attributes:
        path: relative to the volume.
        axes: their names; "?" where the metadata gives none.
        scale: physical size of a voxel per axis, None where not given.
        translation: physical position of the centre of voxel 0, None where not given.
        unit: of the axes of space, as OME-NGFF names it; None where not given or mixed.
        metadata: of the array, as its format has it.
        array: open for reading; None when it cannot be opened, and `error` says why.
    """

    path: str
    axes: tuple[str, ...] = ()
    scale: tuple[float, ...] | None = None
    translation: tuple[float, ...] | None = None
    unit: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    array: ts.TensorStore | None = None
    error: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape) if self.array is not None else ()

    @property
    def dtype(self) -> str:
        return self.array.dtype.name if self.array is not None else ""

    @property
    def chunk(self) -> tuple[int, ...]:
        """What one read fetches."""
        return _cells(self.array.chunk_layout.read_chunk) if self.array is not None else ()

    @property
    def shard(self) -> tuple[int, ...]:
        """What one stored object covers."""
        return _cells(self.array.chunk_layout.write_chunk) if self.array is not None else ()


@dataclass(frozen=True)
class Description:
    """A volume: `format` is zarr3, zarr2, n5 or precomputed; `version` that of OME-NGFF."""

    uri: str
    format: str
    version: str | None
    attributes: dict[str, Any]
    levels: tuple[FoundLevel, ...]

    @property
    def ome(self) -> dict[str, Any]:
        """The OME-NGFF part of the attributes, wherever the version keeps it."""
        return self.attributes.get("ome", self.attributes)

    @property
    def multiscale(self) -> dict[str, Any]:
        """The first multiscale image; empty where there is none."""
        return next(iter(self.ome.get("multiscales", ())), {})


def describe(uri: str) -> Description:
    """Looks at the volume at `uri`, or at the one in a run's output folder.

    Raises:
        InputError: nothing is there, or nothing that is known.
    """
    for place in (uri, *(join(uri, name) for name in VOLUMES)):
        found = (
            _describe_group(place)
            or _describe_zarr_array(place)
            or _describe_n5(place)
            or _describe_precomputed(place)
        )
        if found is not None:
            return found
    raise InputError(
        "there is no volume to look at",
        where=uri,
        expected=f"a Zarr, N5 or precomputed volume, or a folder with {VOLUMES[0]}",
        got="a place without their metadata files" if exists(uri) else "nothing at this address",
        fix="check the path",
    )


def _describe_group(uri: str) -> Description | None:
    group = ngff.read_group(uri)
    if group is None:
        return None
    zarr_format, attributes = group
    empty = Description(uri, f"zarr{zarr_format}", None, attributes, ())
    multiscale = empty.multiscale
    axes = tuple(a["name"] if isinstance(a, dict) else str(a) for a in multiscale.get("axes", ()))
    levels = tuple(
        _open(
            uri,
            dataset["path"],
            zarr_format,
            axes,
            _placement(multiscale, dataset),
        )
        for dataset in multiscale.get("datasets", ())
    )
    version = empty.ome.get("version", multiscale.get("version"))
    return Description(uri, empty.format, version, attributes, levels)


def _placement(multiscale: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    transforms = dataset.get("coordinateTransformations", ())
    found = {t.get("type"): t.get(t.get("type")) for t in transforms}
    axes = [axis for axis in multiscale.get("axes", ()) if isinstance(axis, dict)]
    placement: dict[str, Any] = {
        name: tuple(found[name]) if isinstance(found.get(name), list) else None
        for name in ("scale", "translation")
    }
    return placement | {"unit": _one({a.get("unit") for a in axes if a.get("type") == "space"})}


def _one(units: set[str | None]) -> str | None:
    return units.pop() if len(units) == 1 else None


def _open(
    uri: str, path: str, zarr_format: int, axes: tuple[str, ...], placement: dict[str, Any]
) -> FoundLevel:
    place = join(uri, path)
    metadata = read_json(join(place, "zarr.json" if zarr_format == 3 else ".zarray"))
    if metadata is None:
        return FoundLevel(path, axes, **placement, error="the array is missing")
    spec = {"driver": "zarr3" if zarr_format == 3 else "zarr", "kvstore": kvstore_spec(place)}
    try:
        array = ts.open(spec, open=True, context=context()).result()
    except ValueError as error:
        return FoundLevel(path, axes, **placement, metadata=metadata, error=str(error)[:200])
    names = axes or tuple(metadata.get("dimension_names") or "?" * array.rank)
    return FoundLevel(path, names, **placement, metadata=metadata, array=array)


def _describe_zarr_array(uri: str) -> Description | None:
    for zarr_format, name in ((3, "zarr.json"), (2, ".zarray")):
        if read_json(join(uri, name)) is not None:
            level = _open(uri, "", zarr_format, (), {})
            return Description(uri, f"zarr{zarr_format}", None, {}, (level,))
    return None


def _describe_n5(uri: str) -> Description | None:
    attributes = read_json(join(uri, "attributes.json"))
    if attributes is None:
        return None
    if "dimensions" in attributes:
        return Description(uri, "n5", None, attributes, (_open_n5(uri, "", {}),))
    levels: list[FoundLevel] = []
    while read_json(join(uri, path := f"s{len(levels)}", "attributes.json")) is not None:
        levels.append(_open_n5(uri, path, attributes))
    return Description(uri, "n5", None, attributes, tuple(levels))


def _open_n5(uri: str, path: str, group: dict[str, Any]) -> FoundLevel:
    place = join(uri, path)
    metadata = read_json(join(place, "attributes.json"))
    spec = {"driver": "n5", "kvstore": kvstore_spec(place)}
    array = ts.open(spec, open=True, context=context()).result().T
    axes = tuple(reversed(metadata.get("axes", ()))) or tuple("tczyx"[-array.rank :])
    placed = metadata.get("transform", {})
    # Of the levels above the finest one, the group says nothing.
    scale, units = n5.spacing(metadata, group if path in ("", "s0") else {}) or (None, ())
    symbol = _one({unit for unit in units if unit})
    return FoundLevel(
        path,
        axes,
        scale,
        tuple(placed["translate"]) if "translate" in placed else None,
        n5.UNITS.get(symbol, symbol) if symbol else None,
        metadata,
        array,
    )


def _describe_precomputed(uri: str) -> Description | None:
    info = read_json(join(uri, "info"))
    if info is None or "scales" not in info:
        return None
    levels = tuple(_open_scale(uri, info, k) for k in range(len(info["scales"])))
    return Description(uri, "precomputed", None, info, levels)


def _open_scale(uri: str, info: dict[str, Any], index: int) -> FoundLevel:
    scale, first = info["scales"][index], info["scales"][0]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": kvstore_spec(uri),
        "scale_index": index,
    }
    array = ts.open(spec, open=True, context=context()).result()
    pitch, finest = scale["resolution"], first["resolution"]
    offset = scale.get("voxel_offset", (0, 0, 0))
    # Precomputed places corners; half a voxel further in are the centres.
    centre = (o * p + (p - f) / 2 for o, p, f in zip(offset, pitch, finest, strict=True))
    return FoundLevel(
        scale["key"],
        ("c", "z", "y", "x"),
        (1.0, *reversed(pitch)),
        (0.0, *reversed(list(centre))),
        "nanometer",
        scale,
        array.T[ts.d[:].translate_to[0]],
    )


def _cells(layout: Any) -> tuple[int, ...]:
    return tuple(int(n or 1) for n in layout.shape)
