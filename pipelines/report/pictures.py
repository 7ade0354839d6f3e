"""Arrays as PNGs, and planes of a volume at the size of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import ngff, volume
from warpbeam.transforms.storage.volume_spec import VolumeSpec

Array = np.ndarray[Any, Any]
Window = tuple[float, float]

# The largest plane that is read for one picture: a volume without a pyramid is cut to its middle.
_MOST_VOXELS = 16 << 20
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Plane:
    """A yx plane of a volume, reduced.

    Attributes:
        values: the plane.
        start: yx output voxel at its corner.
        step: yx output voxels in one pixel of the plane.
        whole: whether the plane was not cut.
    """

    values: Array
    start: tuple[int, ...]
    step: tuple[float, ...]
    whole: bool

    def extent(self, origin: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Left, right, bottom, top in world pixels, as matplotlib takes them with y downwards."""
        y, x = (s + o - 0.5 for s, o in zip(self.start, origin[-2:], strict=True))
        height, width = (n * f for n, f in zip(self.values.shape, self.step, strict=True))
        return x, x + width, y + height, y


def read_plane(uri: str, index: tuple[int, int, int], longest: int) -> Plane:
    """Plane `(t, c, z)` of level 0, read from the coarsest level that is large enough.

    Args:
        uri: of the volume.
        index: t, c and z in voxels of level 0.
        longest: the longer side of the result is at most this, px.
    """
    opened = volume.open_volume(uri)
    levels = opened.spec.levels
    enough = [k for k, each in enumerate(levels) if max(each.shape[3:]) >= longest]
    level = levels[enough[-1] if enough else 0]
    t, c, z = index
    z = min(z // level.factor[0], level.shape[2] - 1)
    area = _cut(level.shape[3:])
    box = Box((t, c, z, *area.start), (t + 1, c + 1, z + 1, *area.stop))
    values = opened.level(level.index).read(box)[0, 0, 0]
    start = tuple(s * f for s, f in zip(area.start, level.factor[1:], strict=True))
    shrunk = shrink(values, longest, nearest=opened.spec.method == "mode")
    step = tuple(
        f * n / m for f, n, m in zip(level.factor[1:], values.shape, shrunk.shape, strict=True)
    )
    return Plane(shrunk, start, step, area.shape == level.shape[3:])


def _cut(shape: tuple[int, ...]) -> Box:
    side = int(_MOST_VOXELS**0.5)
    if shape[0] * shape[1] <= _MOST_VOXELS:
        return Box.of_shape(shape)
    size = tuple(min(n, side) for n in shape)
    return Box.of_shape(size, tuple((n - s) // 2 for n, s in zip(shape, size, strict=True)))


def shrink(values: Array, longest: int, *, nearest: bool = False) -> Array:
    """The image made no longer than `longest` on any side, by averaging areas."""
    factor = longest / max(values.shape[:2])
    if factor >= 1:
        return values
    height, width = (max(1, round(n * factor)) for n in values.shape[:2])
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=how)


def windows(spec: VolumeSpec) -> list[Window] | None:
    """What the volume itself says is black and white, per channel; None where it does not."""
    group = ngff.read_group(spec.uri)
    if group is None:
        return None
    attributes = group[1]
    channels = attributes.get("ome", attributes).get("omero", {}).get("channels", [])
    found = [(c["window"]["start"], c["window"]["end"]) for c in channels if "window" in c]
    return found if len(found) == spec.shape[1] else None


def stretch(values: Array) -> Window:
    """The percentiles between which the values of an image are worth showing."""
    finite = values[np.isfinite(values) & (values != 0)]
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def grey(values: Array, window: Window) -> Array:
    """uint8, black at the lower end of the window and white at its upper end."""
    low, high = window
    scaled = (np.nan_to_num(values.astype(np.float32)) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def png(pixels: Array) -> bytes:
    """A uint8 image, yx or yx and red, green, blue."""
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # cv2 has blue first
    return bytes(cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])
