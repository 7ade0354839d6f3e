"""The few facts of an OME-XML block that placing tiles needs, in micrometres and zyx order."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

# A stage that was not calibrated writes "reference frame"; Bio-Formats and ASHLAR take it as um.
MICROMETRES = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0,
    "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "reference frame": 1.0,
}  # fmt: skip
PIXEL = "pixel"


@dataclass(frozen=True)
class OmeImage:
    """One image (series) of an OME-XML block.

    Args:
        name: as the microscope gave it; may be empty.
        voxel_um: zyx; None for an axis without a size.
        position: of the stage, zyx; None for an axis without one.
        position_unit: "um" or "px".
        channel_names: one per channel, empty where not given.
        first_file: name of the file that holds the first plane; empty if not said.
    """

    name: str
    voxel_um: tuple[float | None, ...]
    position: tuple[float | None, ...]
    position_unit: str
    channel_names: tuple[str, ...]
    first_file: str


def parse_ome(xml: str) -> list[OmeImage]:
    """The images of an OME-XML block, in the order of its series.

    Raises:
        ValueError: the text is not OME-XML.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as cause:
        raise ValueError(f"the OME-XML cannot be parsed: {cause}") from cause
    return [_image(node) for node in root.iterfind("{*}Image")]


def _image(node: ElementTree.Element) -> OmeImage:
    pixels = node.find("{*}Pixels")
    if pixels is None:
        raise ValueError("an Image of the OME-XML has no Pixels")
    voxel = tuple(_length(pixels, f"PhysicalSize{a}", "µm")[0] for a in "ZYX")
    planes = pixels.findall("{*}Plane")
    first = min(planes, key=_plane_order) if planes else pixels
    lengths = [_length(first, f"Position{a}", "reference frame") for a in "ZYX"]
    channels = [c.get("Name") or "" for c in pixels.iterfind("{*}Channel")]
    uuid = pixels.find("{*}TiffData/{*}UUID")
    return OmeImage(
        name=node.get("Name") or "",
        voxel_um=voxel,
        position=tuple(value for value, _ in lengths),
        position_unit="px" if lengths[-1][1] == PIXEL else "um",
        channel_names=tuple(channels),
        first_file=(uuid.get("FileName") or "") if uuid is not None else "",
    )


def _plane_order(plane: ElementTree.Element) -> tuple[int, ...]:
    return tuple(int(plane.get(f"The{a}") or 0) for a in "TZC")


def _length(node: ElementTree.Element, name: str, default: str) -> tuple[float | None, str]:
    text, unit = node.get(name), node.get(f"{name}Unit") or default
    if text is None:
        return None, unit
    if unit == PIXEL:
        return float(text), unit
    if unit not in MICROMETRES:
        raise ValueError(f"{name} has the unit {unit!r}, which is not a metric length")
    return float(text) * MICROMETRES[unit], unit
