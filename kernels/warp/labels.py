"""Nearest neighbours: labels, masks, and images that must keep their values.

The nearest voxel is found in float64 and copied, so every dtype is exact, uint64 included.
A position half-way between voxels goes to the upper one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.warp.cast import cast
from warpbeam.kernels.warp.cells import covered, patches
from warpbeam.kernels.warp.sections import draw_sections
from warpbeam.kernels.warp.source import Source

Pixels = Shaped[np.ndarray, "..."]


def warp_labels(
    source: Source,
    m: CoordinateMap,
    box: Box,
    *,
    background: Any = 0,
    bounds: Box | None = None,
) -> Pixels:
    """The source at the nearest voxel to M(p), for each voxel p of a box.

    Args:
        source: any dtype.
        m: from the frame of `box` to that of the source; see `warp_image` for batches.
        box: output voxels.
        background: where the map is not known or leads out of the source.
        bounds: the whole output, of which the box is a part; nothing beyond it is computed.

    Returns:
        `[..., *box]`, in the dtype of the source.

    Raises:
        ValueError: ranks or batches do not fit, or voxels are needed that were not loaded.
    """

    def draw(out: Pixels, one: CoordinateMap, index: tuple[int, ...]) -> None:
        draw_nearest(out, source, index, one, box, bounds)

    return draw_sections(source, m, box, background, source.pixels.dtype, draw)


def draw_nearest(
    out: Pixels,
    source: Source,
    index: tuple[int, ...],
    m: CoordinateMap,
    box: Box,
    bounds: Box | None,
) -> None:
    """One image of a stack; `out` keeps its values where the source is not seen."""
    for patch, window in patches(m, box, source.extent, 1, bounds):
        inside = patch.box & box
        pixels = source.crop(index, window)
        position = patch.exact()[(slice(None), *inside.slices_in(patch.box))]
        valid = covered(position, source.extent, (0,) * box.ndim)
        flat = np.zeros(inside.shape, np.int64)
        for part, start, size in zip(position, window.start, window.shape, strict=True):
            nearest = np.clip(np.nan_to_num(np.floor(part + 0.5)) - start, 0, size - 1)
            flat *= size
            flat += nearest.astype(np.int64)
        values = np.ascontiguousarray(pixels).reshape(-1).take(flat)
        np.copyto(out[inside.slices_in(box)], cast(values, out.dtype), where=valid)
