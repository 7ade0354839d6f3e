"""Pixels that are not to be compared, told by their grey value or label."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Num


@dataclass(frozen=True)
class Exclusion:
    """Excludes pixels by the values of one channel: grey values, or labels of a mask.

    Attributes:
        channel: whose values count.
        values: these are excluded,
        below: what is less,
        above: and what is more; None for no limit.
        invert: exclude all others instead.
        grow: how far around them is excluded too, px.
        cuts: what lies on their two sides moves by itself, as at a crack.
    """

    channel: int
    values: tuple[int | float, ...] = ()
    below: int | float | None = None
    above: int | float | None = None
    invert: bool = False
    grow: int = 0
    cuts: bool = False


def excluded(pixels: Num[np.ndarray, "y x"], rule: Exclusion) -> Bool[np.ndarray, "y x"]:
    """The pixels that a rule excludes; what lies outside of `pixels` excludes nothing."""
    found = np.isin(pixels, np.array(rule.values))
    if rule.below is not None:
        found |= pixels < rule.below
    if rule.above is not None:
        found |= pixels > rule.above
    if rule.invert:
        found = ~found
    if rule.grow:
        side = 2 * rule.grow + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        found = cv2.dilate(found.astype(np.uint8), disc).astype(bool)
    return found
