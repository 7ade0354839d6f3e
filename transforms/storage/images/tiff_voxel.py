"""Voxel size, stage position and channel names from the metadata of a TIFF."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from warpbeam.transforms.storage.images.ome_xml import MICROMETRES, OmeImage, parse_ome


def ome_images(tiff: Any) -> list[OmeImage]:
    """What the OME-XML says about each series; nothing where there is no OME-XML.

    Raises:
        ValueError: the OME-XML is broken.
    """
    return parse_ome(tiff.ome_metadata) if tiff.ome_metadata else []


def ome_image(tiff: Any, series: int) -> OmeImage | None:
    images = ome_images(tiff)
    return images[series] if series < len(images) else None


def metamorph(tiff: Any) -> dict[str, str]:
    """The properties that MetaMorph and MetaXpress write; empty for other files."""
    text = tiff.pages[0].description
    if not text.lstrip().startswith("<MetaData>"):
        return {}
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}
    return {p.get("id", ""): p.get("value", "") for p in root.iterfind("PlaneInfo/*")}


def voxel_um(tiff: Any, series: int) -> tuple[float, float, float] | None:
    """zyx; z is NaN where not said; None where y or x is not said.

    The resolution tags of a TIFF that neither ImageJ nor a microscope wrote are printing
    hints and not read.
    """
    if (image := ome_image(tiff, series)) is not None:
        size = image.voxel_um
    elif properties := metamorph(tiff):
        size = _metamorph_size(properties)
    elif tiff.is_imagej:
        size = _imagej_size(tiff)
    else:
        return None
    z, y, x = (math.nan if n is None or not n > 0 else n for n in size)
    return None if math.isnan(y) or math.isnan(x) else (z, y, x)


def channel_names(tiff: Any, series: int, channels: int) -> tuple[str, ...]:
    """One name per channel, or nothing where they are not said or not distinct."""
    image = ome_image(tiff, series)
    names = image.channel_names if image is not None else ()
    sound = len(names) == channels and all(names) and len(set(names)) == channels
    return names if sound else ()


def _metamorph_size(properties: dict[str, str]) -> tuple[float | None, ...]:
    factor = MICROMETRES.get(properties.get("spatial-calibration-units", ""))
    if factor is None or properties.get("spatial-calibration-state") == "off":
        return None, None, None
    y, x = (float(properties.get(f"spatial-calibration-{a}") or 0) * factor for a in "yx")
    return None, y, x


def _imagej_size(tiff: Any) -> tuple[float | None, ...]:
    facts = tiff.imagej_metadata or {}
    unit = re.sub(r"\\u00[bB]5", "µ", str(facts.get("unit", "")))
    factor = MICROMETRES.get(unit.removesuffix("s") if unit == "microns" else unit)
    tags = tiff.pages[0].tags
    if factor is None or 282 not in tags or 283 not in tags:
        return None, None, None
    x, y = (_size(tags[code].value, factor) for code in (282, 283))
    spacing = facts.get("spacing")
    return (float(spacing) * factor if spacing else None), y, x


def _size(resolution: tuple[int, int], factor: float) -> float | None:
    pixels, units = resolution
    return factor * units / pixels if pixels else None
