"""Boxes all over a volume that is too large to be looked at whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid


def sample_boxes(shape: Sequence[int], box: Sequence[int], most: int) -> list[Box]:
    """Some boxes of a grid, the same ones every time; all of them where there are not more."""
    grid = BlockGrid(tuple(shape), tuple(box))
    chosen = np.arange(len(grid))
    if len(grid) > most:
        chosen = np.unique(np.random.default_rng(0).integers(0, len(grid), most))
    return [grid.box([int(i) for i in np.unravel_index(k, grid.counts)]) for k in chosen]
