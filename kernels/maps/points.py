"""Single points through a map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.interpolate import Outside, offsets_at


def warp_points(
    m: CoordinateMap,
    points: Num[np.ndarray, "n d"],
    section: Int[np.ndarray, " n"] | None = None,
    *,
    outside: Outside = "nan",
) -> Float[np.ndarray, "n d"]:
    """Where points go.

    Args:
        m: a map, or a batch of one axis.
        points: one per row, array order, voxels of A; float or integer, never rounded.
        section: for a batch: the map that each point goes through.
        outside: see `offsets_at`.

    Returns:
        One point per row, voxels of B, float64; NaN where the map is not known.

    Raises:
        ValueError: a batch without sections, sections without a batch, or one out of range.
    """
    if (section is None) != (m.batch == ()) or len(m.batch) > 1:
        raise ValueError(f"sections and a batch of one axis go together, the batch is {m.batch}")
    start = points.T.astype(np.float64)
    if section is None:
        return (start + offsets_at(m, start, outside)).T
    if len(section) and not (section.min() >= 0 and section.max() < m.batch[0]):
        raise ValueError(f"sections {section.min()} to {section.max()} of a batch of {m.batch[0]}")
    moved = np.empty_like(start)
    for z in np.unique(section):
        here = section == z
        moved[:, here] = start[:, here] + offsets_at(m.section(int(z)), start[:, here], outside)
    return moved.T
