"""What drawing a block through a stored map needs of it, and what of the block it reaches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.interpolate import Outside, offsets_at
from warpbeam.kernels.warp.cells import cells
from warpbeam.transforms.drawn import sampled


def nodes_around(lattice: Lattice, block: Box) -> Box:
    """The nodes that the render cells of a block depend on."""
    whole = block
    for cell in cells(block):
        whole = whole | cell
    first = [
        int(np.floor((a - o) / s)) - 1
        for a, o, s in zip(whole.start, lattice.origin, lattice.stride, strict=True)
    ]
    last = [
        int(np.ceil((b - o) / s)) + 2
        for b, o, s in zip(whole.stop, lattice.origin, lattice.stride, strict=True)
    ]
    return Box(tuple(first), tuple(last)) & Box.of_shape(lattice.shape)


def seen_by(
    m: CoordinateMap, shape: tuple[int, ...], block: Box, outside: Outside = "nan"
) -> Bool[np.ndarray, "..."]:
    """Whether a source of this shape lies on every sampled voxel of a block.

    Args:
        outside: see `offsets_at`.
    """
    ends = zip(block.start, block.stop, sampled(block.shape), strict=True)
    axes = [np.arange(a, b)[part] for a, b, part in ends]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float64)
    at = points + offsets_at(m, points, outside)
    limit = np.reshape(shape, (-1, *[1] * len(shape))) - 0.5
    return np.asarray(((at >= -0.5) & (at <= limit)).all(axis=0))
