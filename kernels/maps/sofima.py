"""SOFIMA's coordinate maps, in and out.

SOFIMA keeps `[xy(z), z, y, x]`: the x component first, and a leading z axis also for 2-D maps.
Its boxes are xyz, in nodes, so that node i of the array lies at `(start + i) * stride`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from warpbeam.kernels.maps.coordinate_map import CoordinateMap

SofimaMap = Num[np.ndarray, "d z y x"]


def from_sofima(
    coord_map: SofimaMap,
    stride_zyx: int | float | Sequence[int | float],
    start_xyz: Sequence[int | float] = (0, 0, 0),
) -> CoordinateMap:
    """A map from SOFIMA's array.

    Args:
        coord_map: `[2 or 3, z, y, x]`, any real type: relative offsets in voxels, x component
            first. With two components: one 2-D map per z, which becomes the batch.
        stride_zyx: voxels between nodes, one number or one per axis of the space ((z)yx).
        start_xyz: the start of SOFIMA's box, in nodes; z is ignored for 2-D maps.

    Raises:
        ValueError: another number of components or strides.
    """
    ndim = len(coord_map)
    if ndim not in (2, 3):
        raise ValueError(f"a SOFIMA map has 2 or 3 components, got {coord_map.shape}")
    given = np.atleast_1d(stride_zyx).tolist()
    given = given * ndim if len(given) == 1 else given
    if len(given) != ndim:
        raise ValueError(f"a {ndim}-D map takes {ndim} strides, got {given}")
    stride = tuple(map(float, given))
    start = tuple(start_xyz)[:ndim][::-1]
    origin = tuple(float(a * s) for a, s in zip(start, stride, strict=True))
    u = np.ascontiguousarray(coord_map[::-1])
    return CoordinateMap(u if u.dtype == np.float32 else u.astype(np.float64), origin, stride)


def to_sofima(m: CoordinateMap) -> tuple[SofimaMap, tuple[float, ...]]:
    """SOFIMA's array, and the start of its box in nodes.

    Returns:
        `[2 or 3, z, y, x]`, x component first, and the start in xy or xyz; a fraction where the
        origin is no multiple of the stride, which SOFIMA's boxes cannot express.

    Raises:
        ValueError: a batch of more than one axis, or of 3-D maps.
    """
    if len(m.batch) > 3 - m.ndim:
        raise ValueError(f"SOFIMA has no {m.ndim}-D maps with a batch of {m.batch}")
    array = np.ascontiguousarray(m.u[::-1])
    if m.ndim == 2 and not m.batch:
        array = array[:, None]
    start = tuple(o / s for o, s in zip(m.origin, m.stride, strict=True))
    return array, start[::-1]
