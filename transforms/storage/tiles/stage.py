"""Tiles placed by the stage positions that the microscope wrote into the files.

OME-TIFF (every series is a tile) and MetaMorph or MetaXpress TIFF (ImageXpress).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.ref import unreadable
from warpbeam.transforms.storage.images.source import join
from warpbeam.transforms.storage.images.stack import plane_files
from warpbeam.transforms.storage.images.tiff_layout import open_tiff
from warpbeam.transforms.storage.images.tiff_voxel import metamorph, ome_images, voxel_um
from warpbeam.transforms.storage.tiles.model import THREADS
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.rows import PX, UM, Row

TIFF = (".tif", ".tiff")
SITE = re.compile(r"(?P<well>.+?)\s*:\s*Site\s*(?P<site>\d+)", re.IGNORECASE)


def read_stage(folder: str, names: Sequence[str]) -> list[Row]:
    """One row per TIFF or per series of a TIFF.

    Raises:
        InputError: a file without a stage position.
    """
    chosen = sorted((n for n in names if n.lower().endswith(TIFF)), key=natural)
    with ThreadPoolExecutor(THREADS) as pool:
        rows = pool.map(lambda name: stage_rows(join(folder, name), name), chosen)
        return [row for found in rows for row in found]


def with_stage(rows: Sequence[Row]) -> list[Row]:
    """Rows without a place take that of the stage from their files.

    Raises:
        InputError: a file without a stage position, or with several.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_placed, rows))


def _placed(row: Row) -> Row:
    if row.position is not None:
        return row
    found = stage_rows(plane_files(row.file)[0] if "*" in row.file else row.file, row.name)
    if len(found) != 1:
        raise _no_position(row.file)
    place = found[0]
    return replace(row, position=place.position, unit=place.unit, voxel_um=place.voxel_um)


def has_stage(file: str) -> bool:
    """Whether a file is a TIFF with a stage position."""
    if not file.lower().endswith(TIFF):
        return False
    try:
        return bool(stage_rows(file, os.path.basename(file)))
    except InputError:
        return False


def stage_rows(file: str, name: str) -> list[Row]:
    """The tiles in one file; those of an OME-TIFF set that begin in another file are left out."""
    try:
        with open_tiff(file) as tiff:
            if tiff.ome_metadata:
                return _ome(file, name, tiff)
            if properties := metamorph(tiff):
                return [_metamorph(file, name, tiff, properties)]
    except FileNotFoundError:
        raise
    except ValueError as cause:
        if isinstance(cause, InputError):
            raise
        raise unreadable(file, cause) from cause
    raise _no_position(file)


def _ome(file: str, name: str, tiff: Any) -> list[Row]:
    rows = []
    images = ome_images(tiff)
    stem = re.sub(r"(\.ome)?\.tiff?$", "", name, flags=re.IGNORECASE)
    for series, image in enumerate(images):
        if image.first_file and image.first_file != os.path.basename(name):
            continue
        z, y, x = image.position
        axes = tiff.series[series].axes if series < len(tiff.series) else ""
        if y is None or x is None:
            raise _no_position(file)
        rows.append(
            Row(
                file=file,
                name=name,
                where=f"{file}, series {series}",
                position=(y, x) if z is None or "Z" not in axes else (z, y, x),
                unit=PX if image.position_unit == "px" else UM,
                series=series,
                tile=stem.replace("/", "_") + (f"_s{series}" if len(images) > 1 else ""),
                voxel_um=voxel_um(tiff, series),
            )
        )
    return rows


def _metamorph(file: str, name: str, tiff: Any, properties: dict[str, str]) -> Row:
    try:
        y, x = (float(properties[f"stage-position-{a}"]) for a in "yx")
    except (KeyError, ValueError) as cause:
        raise _no_position(file) from cause
    site = SITE.fullmatch(properties.get("stage-label", ""))
    channel = properties.get("_IllumSetting_") or properties.get("wavelength")
    return Row(
        file=file,
        name=name,
        where=file,
        position=(y, x),
        unit=UM,
        tile=f"{site['well']}_s{site['site']}" if site else None,
        section=site["well"] if site else None,
        channel=channel,
        voxel_um=voxel_um(tiff, 0),
    )


def _no_position(file: str) -> InputError:
    return InputError(
        "a file holds no stage position",
        where=file,
        expected="an OME-TIFF with PositionX and PositionY, or a MetaMorph TIFF",
        got="no stage position in its metadata",
        fix="give a tile list (CSV), or a name pattern with {row} and {col} and an overlap",
    )
