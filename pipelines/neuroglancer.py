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


def state(found: Description, base_url: str) -> dict[str, Any]:
    """The Neuroglancer state that shows the volume served at `base_url`.

    The view is centred and shows the whole width, with the contrast of the middle slice.
    """
    kind = {"zarr3": "zarr", "zarr2": "zarr"}.get(found.format, found.format)
    finest = found.levels[0]
    spatial = [k for k, axis in enumerate(finest.axes) if axis in ("t", "z", "y", "x")]
    dimensions = {finest.axes[k]: _dimension(finest, k) for k in spatial}
    layer: dict[str, Any] = {
        "type": "segmentation" if is_labels(found) else "image",
        "name": Path(urlsplit(base_url).path).name.split(".")[0] or "volume",
        "source": f"{kind}://{base_url}",
    }
    if layer["type"] == "image":
        layer["shaderControls"] = {"normalized": {"range": list(window(found.levels[-1]))}}
    return {
        "dimensions": dimensions,
        "position": [_middle(finest, k) for k in spatial],
        "crossSectionScale": max(1.0, max(finest.shape[-2:]) / _PICTURE_PX),
        "projectionScale": float(max(finest.shape[-3:])),
        "layers": [layer],
        "layout": "xy" if "z" not in finest.axes or _length(finest, "z") == 1 else "4panel",
    }


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


def middle_slice(level: FoundLevel) -> np.ndarray:
    """The yx plane in the middle of z, first time and channel, cut to its middle if large."""
    if level.array is None:
        raise ValueError(f"level {level.path} cannot be read: {level.error}")
    index: list[Any] = []
    for axis, n in zip(level.axes, level.shape, strict=True):
        if axis in ("t", "c"):
            index.append(0)
        elif len(level.shape) - len(index) > 2:
            index.append(n // 2)
        else:
            first = max(0, (n - _PICTURE_PX) // 2)
            index.append(slice(first, first + min(n, _PICTURE_PX)))
    return np.asarray(level.array[tuple(index)].read().result())


def window(level: FoundLevel) -> tuple[float, float]:
    """The percentiles of the level's middle slice between which contrast is stretched.

    Whole numbers for integer types: Neuroglancer takes no others there.
    """
    plane = middle_slice(level).astype(np.float64)
    finite = plane[np.isfinite(plane)]
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    if np.dtype(level.dtype).kind in "iu":
        low, high = np.floor(low), np.ceil(high)
        return int(low), int(max(high, low + 1))
    return float(low), float(max(high, low + 1e-6))


def picture(level: FoundLevel, low: float, high: float) -> bytes:
    """A PNG of the middle slice, `low` black and `high` white."""
    import cv2

    plane = np.nan_to_num(middle_slice(level).astype(np.float64))
    grey = np.clip((plane - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    return bytes(cv2.imencode(".png", grey)[1])
