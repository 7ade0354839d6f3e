"""What a chain of sections adds up, told apart from what it aligns.

Flow between neighbours holds two things: how the sections were displaced, and how the tissue
itself runs on (a fibre that is cut obliquely moves from section to section). The first jumps from
section to section; the second is nearly the same over many. Followed blindly, a chain straightens
every oblique fibre and drifts away. So of the meshes of a stack, what varies slowly along z
is taken out again: of whole sections their steady drift (`drift`), and at each place the bends that
are slow over a window of sections. (IMOD's xftoxg does the same for affine matrices.) A place is
one of the aligned stack: there neighbours show the same tissue, while the same node of two
sections does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.fill import fill_nearest
from warpbeam.kernels.maps.invert import invert

Numbers = Sequence[int] | Int[np.ndarray, " n"]
Series = Float[np.ndarray, "z c"]
Stack = Float[np.ndarray, "z c y x"]


def arrived(forward: CoordinateMap) -> Float[np.ndarray, "c y x"]:
    """By how much what a map brings to each node of the aligned frame was moved, px.

    Where it brings nothing, the value of the nearest node; its mean where it brings nothing to
    any.
    """
    back = invert(forward)
    if not back.known.any():
        mean = np.nanmean(forward.u, axis=(1, 2), keepdims=True)
        return np.broadcast_to(mean, forward.u.shape).copy()
    return -fill_nearest(back).u


def slow_part(
    sections: Numbers, offsets: Stack, wanted: Numbers, window: int
) -> Float[np.ndarray, "wanted c y x"]:
    """The offsets of the `wanted` sections smoothed along z.

    A local line with tricube weights (Cleveland 1979, doi 10.1080/01621459.1979.10481038), so
    that the ends of the stack are treated like its middle.

    Args:
        sections: numbers of the sections, ascending.
        offsets: at the same places of each, px, all known; see `arrived`.
        wanted: numbers of sections.
        window: sections on either side that count.
    """
    at = np.asarray(sections, float)
    flat = offsets.reshape(len(offsets), -1)
    rows = np.stack([_local_line((at - z) / (window + 1)) for z in wanted])
    return (rows @ flat).reshape(len(wanted), *offsets.shape[1:])


def tricube(away: Float[np.ndarray, " z"]) -> Float[np.ndarray, " z"]:
    """Weights that fall from 1 to 0 at a distance of 1 (Cleveland 1979)."""
    return np.clip(1 - np.abs(away) ** 3, 0, None) ** 3


def _local_line(away: Float[np.ndarray, " z"]) -> Float[np.ndarray, " z"]:
    """Weights whose sum with values is the value at 0 of the best line."""
    weight = tricube(away)
    total, first, second = (float((weight * away**k).sum()) for k in range(3))
    spread = total * second - first**2
    if spread <= 1e-9 * total**2:
        return weight / total
    return weight * (second - first * away) / spread
