"""A volume in a viewer: the Neuroglancer link that carries the whole state, and slice pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from warpbeam.transforms.storage.describe import Description, FoundLevel
from warpbeam.transforms.storage.ngff import METRES

VIEWER = "https://neuroglancer-demo.appspot.com/#!"
# A slice picture is for a look: wider ones are cut to their middle.
_PICTURE_PX = 1024
_PERCENTILES = (0.5, 99.5)
_SHADER = """\
#uicontrol vec3 color color(default="#{colour}")
#uicontrol invlerp normalized
void main() {{ emitRGB(color * normalized()); }}
"""


def state(found: Description, base_url: str) -> dict[str, Any]:
    """The Neuroglancer state that shows the volume served at `base_url`.

    The view is centred and shows the whole width; each channel is a layer.
    """
    finest = found.levels[0]
    spatial = [k for k, axis in enumerate(finest.axes) if axis in ("t", "z", "y", "x")]
    dimensions = {finest.axes[k]: _dimension(finest, k) for k in spatial}
    return {
        "dimensions": dimensions,
        "position": [_middle(finest, k) for k in spatial],
        "crossSectionScale": max(1.0, max(finest.shape[-2:]) / _PICTURE_PX),
        "projectionScale": float(max(finest.shape[-3:])),
        "layers": _layers(found, base_url),
        "layout": "xy" if "z" not in finest.axes or _length(finest, "z") == 1 else "4panel",
    }


def _layers(found: Description, base_url: str) -> list[dict[str, Any]]:
    """One of labels or of a single channel; else one per channel, in its colour, that add up.

    Neuroglancer calls the axis of channels c' in OME-Zarr, whose layers choose one each.
    """
    kind = {"zarr3": "zarr", "zarr2": "zarr"}.get(found.format, found.format)
    name = Path(urlsplit(base_url).path).name.split(".")[0] or "volume"
    layer: dict[str, Any] = {"name": name, "source": f"{kind}://{base_url}"}
    if is_labels(found):
        return [{"type": "segmentation", **layer}]
    finest = found.levels[0]
    count = _length(finest, "c") if "c" in finest.axes and kind == "zarr" else 1
    told = found.ome.get("omero", {}).get("channels", [])
    told = told if len(told) == count else [{}] * count
    layers = []
    for number, channel in enumerate(told):
        normalized = {"normalized": {"range": list(_window(found, number, channel))}}
        layers.append({"type": "image", **layer, "shaderControls": normalized})
        if count > 1:
            colour = channel.get("color", "FFFFFF")
            layers[-1] |= {
                "name": str(channel.get("label", f"channel {number}")),
                "localDimensions": {"c'": [1, ""]},
                "localPosition": [number],
                "blend": "additive",
                "shader": _SHADER.format(colour=colour),
            }
    return layers


def _window(found: Description, number: int, channel: dict[str, Any]) -> tuple[float, float]:
    """Between which values contrast is stretched: as the metadata have it, where that is less than
    all that the type holds."""
    given, dtype = channel.get("window", {}), np.dtype(found.levels[0].dtype)
    ends = given.get("start"), given.get("end")
    limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (0, 1)
    if None in ends or ends == limits:
        return window(found.levels[-1], number)
    return _stretched(*ends, dtype)


def is_labels(found: Description) -> bool:
    """Whether the values are object numbers, by what the metadata says."""
    return (
        "image-label" in found.ome
        or found.multiscale.get("type") == "mode"
        or found.attributes.get("type") == "segmentation"
    )


def _dimension(level: FoundLevel, k: int) -> list[Any]:
    if level.axes[k] == "t" or level.scale is None:
        return [1, ""]
    if level.unit in METRES:
        return [level.scale[k] * METRES[level.unit], "m"]
    return [level.scale[k], ""]


def _middle(level: FoundLevel, k: int) -> float:
    """The centre in voxels of the dimension; Neuroglancer counts from the corner."""
    start = level.translation[k] / level.scale[k] if level.translation and level.scale else 0.0
    return float(start + level.shape[k] // 2 + 0.5)


def _length(level: FoundLevel, axis: str) -> int:
    return level.shape[level.axes.index(axis)]


def link(found: Description, base_url: str) -> str:
    """The address that opens the volume in Neuroglancer."""
    return VIEWER + quote(json.dumps(state(found, base_url), separators=(",", ":")), safe="")


def middle_slice(level: FoundLevel, channel: int = 0) -> np.ndarray:
    """The yx plane in the middle of z, at the first time, cut to its middle if large."""
    if level.array is None:
        raise ValueError(f"level {level.path} cannot be read: {level.error}")
    index: list[Any] = []
    for axis, n in zip(level.axes, level.shape, strict=True):
        if axis in ("t", "c"):
            index.append(channel if axis == "c" else 0)
        elif len(level.shape) - len(index) > 2:
            index.append(n // 2)
        else:
            first = max(0, (n - _PICTURE_PX) // 2)
            index.append(slice(first, first + min(n, _PICTURE_PX)))
    return np.asarray(level.array[tuple(index)].read().result())


def window(level: FoundLevel, channel: int = 0) -> tuple[float, float]:
    """The percentiles of the level's middle slice between which contrast is stretched."""
    plane = middle_slice(level, channel).astype(np.float64)
    finite = plane[np.isfinite(plane)]
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    return _stretched(low, high, np.dtype(level.dtype))


def _stretched(low: float, high: float, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Whole numbers for integer types: Neuroglancer takes no others there."""
    if dtype.kind in "iu":
        low, high = np.floor(low), np.ceil(high)
        return int(low), int(max(high, low + 1))
    return float(low), float(max(high, low + 1e-6))


def picture(level: FoundLevel, low: float, high: float) -> bytes:
    """A PNG of the middle slice, `low` black and `high` white."""
    import cv2

    plane = np.nan_to_num(middle_slice(level).astype(np.float64))
    grey = np.clip((plane - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    return bytes(cv2.imencode(".png", grey)[1])
