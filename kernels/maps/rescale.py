"""The same map between images of other voxel sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_absolute


def rescale(
    m: CoordinateMap,
    source: Sequence[int | float] | None = None,
    target: Sequence[int | float] | None = None,
) -> CoordinateMap:
    """The map in other voxels, of A, of B or of both. The nodes stay where they are.

    A voxel k times larger is the mean of k of them, so its centre k * i + (k - 1) / 2 lies between
    theirs; rendering at another voxel size is rendering through the rescaled map.

    Args:
        m: a map or a batch.
        source: size of the new voxels of A in present ones, per axis; 2 for a coarser pyramid
            level, 1/2 for a finer one.
        target: the same for B.

    Returns:
        A map in the dtype of `m`.
    """
    ones = (1.0,) * m.ndim
    a, b = tuple(source or ones), tuple(target or ones)
    size = np.asarray(b, np.float64).reshape(m.ndim, *[1] * (m.u.ndim - 1))
    moved = from_absolute((m.absolute - (size - 1) / 2) / size, m.lattice.at_scale(a))
    return moved.with_offsets(moved.u.astype(m.u.dtype))
