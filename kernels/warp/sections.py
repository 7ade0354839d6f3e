"""Stacks of images through batches of maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.warp.source import Source

Pixels = Shaped[np.ndarray, "..."]


def draw_sections(
    source: Source,
    m: CoordinateMap,
    box: Box,
    background: Any,
    dtype: np.dtype,
    draw: Callable[[Pixels, CoordinateMap, tuple[int, ...]], None],
) -> Pixels:
    """Background, then `draw(out, map, index)` on every image of the stack.

    Raises:
        ValueError: ranks differ, or the batch of maps does not broadcast to the images.
    """
    lead = source.pixels.shape[: -source.window.ndim]
    if not m.ndim == box.ndim == source.window.ndim:
        raise ValueError(
            f"a {m.ndim}-D map, a {box.ndim}-D box and a {source.window.ndim}-D source"
        )
    if not _broadcasts(m.batch, lead):
        raise ValueError(f"a batch of {m.batch} maps does not fit images stacked as {lead}")
    out = np.full((*lead, *box.shape), background, dtype)
    skipped = len(lead) - len(m.batch)
    for index in np.ndindex(lead):
        which = [i if n > 1 else 0 for i, n in zip(index[skipped:], m.batch, strict=True)]
        one = m.section(*which)
        if np.isfinite(one.u).any():
            draw(out[index], one, index)
    return out


def _broadcasts(batch: tuple[int, ...], lead: tuple[int, ...]) -> bool:
    if len(batch) > len(lead):
        return False
    return all(n in (1, k) for n, k in zip(batch, lead[len(lead) - len(batch) :], strict=True))
