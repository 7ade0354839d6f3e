"""What a chain of sections adds up, told apart from what it aligns.

Flow between neighbours holds two things: how the sections were displaced, and how the tissue
itself runs on (a fibre that is cut obliquely moves from section to section). The first jumps from
section to section; the second is nearly the same over many. Followed blindly, a chain straightens
every oblique fibre and drifts away. So of the meshes of a stack, what varies slowly along z
is taken out again: at each place over a window of sections, and of the mean displacement
of whole sections its linear trend. (IMOD's xftoxg does the same for affine matrices.) A place is
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


_DEVIATION = 1.48  # standard deviation over median deviation
_HUBER = 1.345  # deviations beyond which a step counts less; 95 % as efficient as a mean
_ROUNDS = 30
# A slope that is less certain (px per section) is no better than none.
_MOST_ERROR_PX = 0.1


def linear_trend(sections: Numbers, shift: Series) -> Series:
    """The steady drift of whole sections, about the middle of the stack; level where the
    sections are too few, or jump too much, to tell.

    The slope is the middle of the steps after Huber (1964, doi 10.1214/aoms/1177703732): a mean
    on which jumps of the stage have no more weight than large steps. (A median would jump itself
    where sections move by a hair.)

    Args:
        sections: their numbers, ascending; some may be missing.
        shift: mean displacement of each, px.
    """
    at = np.asarray(sections, float)
    if len(at) < 3:
        return np.zeros_like(shift)
    steps = np.diff(shift, axis=0) / np.diff(at)[:, None]
    spread = _DEVIATION * np.median(np.abs(steps - np.median(steps, axis=0)), axis=0)
    step = np.where(spread / np.sqrt(len(steps)) <= _MOST_ERROR_PX, _middle(steps, spread), 0.0)
    line = step * at[:, None]
    return line + np.median(shift - line, axis=0)


def _middle(steps: Series, spread: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Huber's mean of each column."""
    middle = np.median(steps, axis=0)
    for _ in range(_ROUNDS):
        apart = np.maximum(np.abs(steps - middle), 1e-12)
        weight = np.minimum(1, np.maximum(_HUBER * spread, 1e-12) / apart)
        middle = (weight * steps).sum(axis=0) / weight.sum(axis=0)
    return middle


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


def _local_line(away: Float[np.ndarray, " z"]) -> Float[np.ndarray, " z"]:
    """Weights whose sum with values is the value at 0 of the best line."""
    weight = np.clip(1 - np.abs(away) ** 3, 0, None) ** 3
    total, first, second = (float((weight * away**k).sum()) for k in range(3))
    spread = total * second - first**2
    if spread <= 1e-9 * total**2:
        return weight / total
    return weight * (second - first * away) / spread
