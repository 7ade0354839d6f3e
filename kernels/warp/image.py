"""Images drawn through a coordinate map.

An output coarser than the source wants a coarser level of the source's pyramid: interpolation
does not average.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.warp.cast import cast
from warpbeam.kernels.warp.cells import Patch, covered, patches
from warpbeam.kernels.warp.labels import draw_nearest
from warpbeam.kernels.warp.sample import sample
from warpbeam.kernels.warp.sections import draw_sections
from warpbeam.kernels.warp.source import Source

Pixels = Num[np.ndarray, "..."]

INTERPOLATIONS = ("nearest", "linear", "cubic", "lanczos")
_REACH = {"nearest": 1, "linear": 2, "cubic": 12, "lanczos": 5}


def needed(
    m: CoordinateMap,
    box: Box,
    extent: Box,
    interpolation: str = "linear",
    *,
    bounds: Box | None = None,
) -> Box:
    """The voxels of the source that must be loaded to draw a box; empty where none."""
    total: Box | None = None
    reach = _REACH[interpolation]
    for index in np.ndindex(m.batch):
        for _, window in patches(m.section(*index), box, extent, reach, bounds):
            total = window if total is None else total | window
    return Box(extent.start, extent.start) if total is None else total


def warp_image(
    source: Source,
    m: CoordinateMap,
    box: Box,
    interpolation: str = "linear",
    *,
    background: int | float = 0.0,
    dtype: np.dtype | None = None,
    bounds: Box | None = None,
) -> Pixels:
    """The source at M(p), for each voxel p of a box.

    Args:
        source: `[..., (z,) y, x]`. Unknown (NaN) voxels of float images spoil those around them.
        m: from the frame of `box` to that of the source. A batch goes with the last of the
            source's leading axes by NumPy's rule: `[2, z, y, x]` offsets draw `[z, y, x]` or
            `[channel, z, y, x]` images section by section. Up to one stride beyond its
            outermost nodes a map is continued along its last link.
        box: output voxels. `maps.rescale` gives the map for another voxel size.
        interpolation: one of `INTERPOLATIONS`.
        background: where the map is not known or leads out of the source; NaN needs a float dtype.
        dtype: of the result, by default that of the source. Integers are rounded half to even and
            clipped to their range.
        bounds: the whole output, of which the box is a part; nothing beyond it is computed.

    Returns:
        `[..., *box]`. The same bits for a voxel whatever the box, if the map has its nodes around
        the whole render cells and the source the voxels `needed`.

    Raises:
        ValueError: ranks or batches do not fit, unknown interpolation, Lanczos in 3-D, or voxels
            are needed that were not loaded.
    """
    if interpolation not in INTERPOLATIONS or (box.ndim == 3 and interpolation == "lanczos"):
        raise ValueError(f"no {interpolation!r} interpolation in {box.ndim}-D")
    wanted = source.pixels.dtype if dtype is None else np.dtype(dtype)

    def draw(out: Pixels, one: CoordinateMap, index: tuple[int, ...]) -> None:
        if interpolation == "nearest":
            draw_nearest(out, source, index, one, box, bounds)
        else:
            _draw(out, source, index, one, box, interpolation, bounds)

    return draw_sections(source, m, box, background, wanted, draw)


def _draw(
    out: Pixels,
    source: Source,
    index: tuple[int, ...],
    m: CoordinateMap,
    box: Box,
    interpolation: str,
    bounds: Box | None,
) -> None:
    for patch, window in patches(m, box, source.extent, _REACH[interpolation], bounds):
        inside = patch.box & box
        crop, place = inside.slices_in(patch.box), inside.slices_in(box)
        position = patch.dense(window.start)
        valid = None
        if not _all_covered(patch, source.extent):
            valid = covered(position, source.extent, window.start)[crop]
            if not patch.known:
                position[np.isnan(position)] = 0
        pixels = source.crop(index, window)
        values = cast(sample(pixels, position, interpolation, out.dtype)[crop], out.dtype)
        np.copyto(out[place], values, where=True if valid is None else valid)


def _all_covered(patch: Patch, extent: Box) -> bool:
    """Whether every voxel of a patch surely lies on the source."""
    if not patch.known or patch.reach is None:
        return False
    low, high = patch.reach
    return bool((low >= extent.start).all() and (high <= np.array(extent.stop) - 1).all())
