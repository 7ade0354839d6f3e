"""OME-NGFF metadata of images and labels: dataclasses to JSON, versions 0.5 and 0.4.

Convention: the position of a voxel is that of its centre. The centre of the first voxel of
a level reduced k-fold by averaging lies `(k - 1) / 2` level-0 voxels beyond that of level 0,
so its translation is `origin + voxel * (k - 1) / 2`; the same holds for the mode, which also
stands for the whole block. (A level made by taking every k-th voxel would have none; none
is written here.) Each dataset carries a scale and then a translation.

Specification: https://ngff.openmicroscopy.org/0.5 and /0.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.store import join, read_json, write_json

TYPE_OF_AXIS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
# fmt: off
_PREFIXES = {
    "yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12, "giga": 9, "mega": 6,
    "kilo": 3, "hecto": 2, "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6,
    "nano": -9, "pico": -12, "femto": -15, "atto": -18, "zepto": -21, "yocto": -24,
}
# fmt: on
# The length of each unit of space that the specification names, in metres.
METRES = {f"{prefix}meter": 10.0**exponent for prefix, exponent in _PREFIXES.items()} | {
    "angstrom": 1e-10,
    "inch": 0.0254,
    "foot": 0.3048,
    "yard": 0.9144,
    "mile": 1609.344,
    "parsec": 3.0856775814913673e16,
}
TIME_UNITS = frozenset({f"{prefix}second" for prefix in _PREFIXES} | {"minute", "hour", "day"})
COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FF0000", "0000FF", "FFFF00")


@dataclass(frozen=True)
class Axis:
    """One axis; `unit` is a long name, in `METRES` or `TIME_UNITS`, or None."""

    name: str
    unit: str | None = None

    def json(self) -> dict[str, str]:
        unit = {"unit": self.unit} if self.unit else {}
        return {"name": self.name, "type": TYPE_OF_AXIS[self.name], **unit}


@dataclass(frozen=True)
class Dataset:
    """One level: the path of its array, scale and translation per axis, in axis units."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    def json(self) -> dict[str, Any]:
        transforms = [
            {"type": "scale", "scale": list(self.scale)},
            {"type": "translation", "translation": list(self.translation)},
        ]
        return {"path": self.path, "coordinateTransformations": transforms}


@dataclass(frozen=True)
class Window:
    """What a viewer maps to black and white (start, end) and offers to choose (min, max)."""

    start: float
    end: float
    min: float
    max: float

    @classmethod
    def of_dtype(cls, dtype: str) -> Window:
        """The whole range of an integer type; 0 to 1 for floats."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            return cls(0.0, 1.0, 0.0, 1.0)
        info = np.iinfo(kind)
        return cls(int(info.min), int(info.max), int(info.min), int(info.max))

    def json(self) -> dict[str, float]:
        return {"min": self.min, "max": self.max, "start": self.start, "end": self.end}


@dataclass(frozen=True)
class Channel:
    """How one channel is shown; `color` is six hexadecimal digits."""

    label: str
    color: str
    window: Window

    def json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "color": self.color,
            "window": self.window.json(),
            "active": True,
        }


@dataclass(frozen=True)
class Image:
    """A multiscale image, with channels (empty for labels)."""

    version: str
    name: str
    axes: tuple[Axis, ...]
    datasets: tuple[Dataset, ...]
    channels: tuple[Channel, ...] = ()
    method: str = "mean"

    def attributes(self) -> dict[str, Any]:
        """The attributes of the image's group."""
        multiscale = {
            "name": self.name,
            "axes": [axis.json() for axis in self.axes],
            "datasets": [dataset.json() for dataset in self.datasets],
            "type": self.method,
            "metadata": {"method": "tensorstore.downsample", "kwargs": {"method": self.method}},
        }
        body: dict[str, Any] = {"multiscales": [multiscale]}
        if self.channels:
            body["omero"] = {"channels": [channel.json() for channel in self.channels]}
        if self.version == "0.4":
            for part in (multiscale, body.get("omero", {})):
                part["version"] = self.version
        return in_version(self.version, body)


def default_channels(names: Sequence[str], dtype: str) -> tuple[Channel, ...]:
    """One channel is white; several take the colours of `COLORS` from green on."""
    first = 0 if len(names) == 1 else 1
    window = Window.of_dtype(dtype)
    return tuple(
        Channel(name, COLORS[(first + i) % len(COLORS)], window) for i, name in enumerate(names)
    )


def half_voxel_dataset(
    path: str, scale: Sequence[float], origin: Sequence[float], factor: Sequence[int]
) -> Dataset:
    """The tczyx dataset of a level reduced `factor`-fold from voxels of size `scale`.

    Args:
        path: of the level's array.
        scale: (z, y, x) size of a level-0 voxel.
        origin: (z, y, x) centre of level-0 voxel 0, in level-0 voxels.
        factor: (z, y, x) from level 0 to this level.
    """
    rows = list(zip(scale, origin, factor, strict=True))
    return Dataset(
        path,
        (1.0, 1.0, *(s * f for s, _, f in rows)),
        (0.0, 0.0, *(s * (o + (f - 1) / 2) for s, o, f in rows)),
    )


def labels_group(version: str, names: Sequence[str]) -> dict[str, Any]:
    """The attributes of the `labels` group, which lists the label images in it."""
    return in_version(version, {"labels": list(names)})


def label_image(image: Image, source: str = "../../") -> dict[str, Any]:
    """The attributes of one label image that belongs to the image at `source`."""
    attributes = image.attributes()
    label: dict[str, Any] = {"source": {"image": source}}
    if image.version == "0.4":
        label["version"] = image.version
    (attributes if image.version == "0.4" else attributes["ome"])["image-label"] = label
    return attributes


def in_version(version: str, body: dict[str, Any]) -> dict[str, Any]:
    """`body` where a version keeps it: below `ome` from 0.5 on, at the top in 0.4."""
    return body if version == "0.4" else {"ome": {"version": version, **body}}


def group_files(version: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The metadata files of a Zarr group (v3 for 0.5, v2 for 0.4), as key -> JSON."""
    if version == "0.4":
        return {".zgroup": {"zarr_format": 2}, ".zattrs": attributes}
    return {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": attributes}}


def read_group(uri: str) -> tuple[int, dict[str, Any]] | None:
    """Zarr format (3 or 2) and attributes of the group at `uri`; None if it is not one."""
    node = read_json(join(uri, "zarr.json"))
    if node is not None:
        return (3, node.get("attributes", {})) if node.get("node_type") == "group" else None
    if read_json(join(uri, ".zgroup")) is not None:
        return 2, read_json(join(uri, ".zattrs")) or {}
    return None


def level_factors(uri: str) -> tuple[tuple[int, ...], ...] | None:
    """How much each level of an image is reduced from the one below it, zyx; None where there is
    no image with levels, or where they are not whole steps."""
    group = read_group(uri) if "|" not in uri else None
    attributes = group[1] if group else {}
    found = attributes.get("ome", attributes).get("multiscales")
    if not found:
        return None
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in found[0]["axes"]]
    scales = []
    for dataset in found[0]["datasets"]:
        given = [t["scale"] for t in dataset["coordinateTransformations"] if t["type"] == "scale"]
        step = dict(zip(names, given[0], strict=True))
        scales.append([step.get(axis, 1.0) for axis in "zyx"])
    ratios = np.divide(scales[1:], scales[:-1])
    whole = np.rint(ratios).astype(int)
    good = np.allclose(ratios, whole, rtol=0.01) and all(max(r) > 1 for r in whole)
    return tuple(tuple(r) for r in whole.tolist()) if good else None


def set_window(uri: str, windows: Sequence[tuple[float, float]]) -> None:
    """Sets what viewers show as black and white, one (start, end) per channel.

    Raises:
        InputError: there is no image with that many channels at `uri`.
    """
    found = read_group(uri)
    attributes = found[1] if found else {}
    body = attributes.get("ome", attributes)
    channels = body.get("omero", {}).get("channels", [])
    if found is None or len(channels) != len(windows):
        raise InputError(
            "the display window cannot be set",
            where=uri,
            expected=f"an OME-Zarr image with {len(windows)} channels",
            got=f"{len(channels)} channels" if found else "no Zarr group",
            fix="give one (start, end) per channel",
        )
    for channel, (start, end) in zip(channels, windows, strict=True):
        channel["window"] |= {"start": start, "end": end}
    if found[0] == 2:
        write_json(join(uri, ".zattrs"), attributes)
    else:
        write_json(
            join(uri, "zarr.json"), read_json(join(uri, "zarr.json")) | {"attributes": attributes}
        )
