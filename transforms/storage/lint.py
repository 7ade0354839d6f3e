"""Viewer lint: what validators accept, or do not look at, and what stops viewers.

Neuroglancer throws on unit names outside the specification's list, on versions that it does not
know and on NGFF 0.5 over Zarr v2, and it shows no 64-bit floats or signed integers
(google/neuroglancer, src/datasource/zarr/ome.ts). The half-voxel rule is in `ngff`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from warpbeam.transforms.storage.describe import Description, FoundLevel, describe
from warpbeam.transforms.storage.ngff import METRES, TIME_UNITS, TYPE_OF_AXIS
from warpbeam.transforms.storage.volume_spec import DTYPES

_ZARR_OF_VERSION = {"0.4": "zarr2", "0.5": "zarr3"}
# Methods that stand for one voxel of the block, at its first corner or its centre.
_PICKING = ("stride", "nearest", "subsample")


@dataclass(frozen=True)
class Finding:
    """One thing to mend: `rule` is a stable name, `where` a path in the metadata."""

    rule: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.where}: {self.message}; {self.fix}"


def lint(volume: str | Description) -> list[Finding]:
    """What would keep the volume from opening, or from lying in the right place, in a viewer.

    Raises:
        InputError: there is no volume.
    """
    found = describe(volume) if isinstance(volume, str) else volume
    findings = [*_arrays(found), *_levels(found)]
    if found.multiscale:
        findings += [*_axes(found), *_version(found), *_half_voxel(found), *_windows(found)]
    elif found.format in ("zarr3", "zarr2"):
        findings.append(
            Finding(
                "no-multiscales",
                found.uri,
                "there is no OME-NGFF image metadata",
                "add multiscales, or open the arrays one by one",
            )
        )
    return findings


def _arrays(found: Description) -> Iterator[Finding]:
    for level in found.levels:
        if level.array is None:
            yield Finding("array", level.path, level.error, "write the level, or take it off")
        elif level.dtype not in DTYPES:
            yield Finding(
                "dtype",
                level.path,
                f"Neuroglancer cannot show {level.dtype}",
                f"store one of {', '.join(DTYPES)}",
            )
        names = level.metadata.get("dimension_names") if found.format == "zarr3" else None
        if found.format == "zarr3" and found.multiscale and list(names or ()) != list(level.axes):
            yield Finding(
                "dimension-names",
                level.path,
                f"dimension_names {names} are not the axes {list(level.axes)}",
                "set dimension_names of the array to the names of the axes",
            )


def _axes(found: Description) -> Iterator[Finding]:
    for k, axis in enumerate(found.multiscale.get("axes", ())):
        kind, unit = axis.get("type"), axis.get("unit")
        known = METRES if kind == "space" else TIME_UNITS
        where = f"multiscales[0].axes[{k}]"
        if unit is not None and unit not in known:
            yield Finding(
                "unit",
                where,
                f"{unit!r} is not a unit of {kind} that OME-NGFF names",
                "write the long name, such as micrometer or second, or leave the unit out",
            )
        if kind is None or TYPE_OF_AXIS.get(axis.get("name"), kind) != kind:
            yield Finding(
                "axis-type",
                where,
                f"axis {axis.get('name')!r} has type {kind!r}",
                "use type time for t, channel for c and space for z, y and x",
            )


def _version(found: Description) -> Iterator[Finding]:
    wanted = _ZARR_OF_VERSION.get(found.version or "")
    if wanted is None:
        yield Finding(
            "version",
            "version",
            f"version {found.version!r} is not one that viewers know",
            f"declare one of {', '.join(_ZARR_OF_VERSION)}",
        )
    elif wanted != found.format:
        yield Finding(
            "version",
            "version",
            f"OME-NGFF {found.version} is stored on {wanted}, this is {found.format}",
            "write the metadata version that goes with the format",
        )
    if ("ome" in found.attributes) != (found.version != "0.4"):
        yield Finding(
            "place",
            "attributes",
            f"metadata of version {found.version} is not where that version keeps it",
            "keep it below `ome` from 0.5 on, and at the top of .zattrs in 0.4",
        )


def _levels(found: Description) -> Iterator[Finding]:
    for fine, coarse in _pairs(found):
        if math.prod(coarse.shape) > math.prod(fine.shape):
            yield Finding(
                "level-order",
                coarse.path,
                f"shape {coarse.shape} is larger than {fine.shape} of the level before",
                "list the levels from fine to coarse",
            )
        if not fine.scale or not coarse.scale or len(fine.scale) != len(coarse.scale):
            continue
        if any(b < a for a, b in zip(fine.scale, coarse.scale, strict=True)):
            yield Finding(
                "level-order",
                coarse.path,
                f"scale {coarse.scale} is finer than {fine.scale} of the level before",
                "list the levels from fine to coarse",
            )
        elif len(fine.shape) == len(coarse.shape) == len(fine.scale):
            yield from _extent(fine, coarse)


def _extent(fine: FoundLevel, coarse: FoundLevel) -> Iterator[Finding]:
    for axis, n, m, a, b in zip(
        fine.axes, fine.shape, coarse.shape, fine.scale or (), coarse.scale or (), strict=True
    ):
        # Levels may round their size up or down; more than a voxel is another scale.
        if abs(n * a - m * b) > b * (1 + 1e-6):
            yield Finding(
                "level-scale",
                coarse.path,
                f"axis {axis}: {m} voxels of {b:g} do not cover {n} of {a:g}",
                "give the scale by which the level was reduced",
            )


def _half_voxel(found: Description) -> Iterator[Finding]:
    if str(found.multiscale.get("type", "")).lower() in _PICKING:
        return
    for fine, coarse in _pairs(found):
        if fine.scale is None or coarse.scale is None:
            continue
        zero = (0.0,) * len(fine.scale)
        rows = zip(
            fine.axes,
            fine.scale,
            coarse.scale,
            fine.translation or zero,
            coarse.translation or zero,
            strict=True,
        )
        for axis, a, b, start, got in rows:
            wanted = start + (b - a) / 2
            if abs(got - wanted) > 1e-3 * b:
                yield Finding(
                    "half-voxel",
                    coarse.path,
                    f"axis {axis} starts at {got:g}, its first voxel is centred at {wanted:g}",
                    "add (k - 1) / 2 voxels of the finest level to the translation",
                )


def _windows(found: Description) -> Iterator[Finding]:
    channels = found.ome.get("omero", {}).get("channels", ())
    for k, channel in enumerate(channels):
        where, window = f"omero.channels[{k}]", channel.get("window", {})
        missing = [name for name in ("min", "max", "start", "end") if name not in window]
        if missing:
            yield Finding(
                "window", where, f"the window has no {', '.join(missing)}", "give all four"
            )
        if not re.fullmatch("[0-9a-fA-F]{6}", str(channel.get("color", ""))):
            yield Finding(
                "color",
                where,
                f"{channel.get('color')!r} is not a colour",
                "give six hexadecimal digits, such as FFFFFF",
            )


def _pairs(found: Description) -> Iterator[tuple[FoundLevel, FoundLevel]]:
    yield from zip(found.levels, found.levels[1:], strict=False)
