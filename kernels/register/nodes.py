"""Nodes of a map between which straight lines run best."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "d *nodes"]

# Mean over a cell of t (1 - t) / 2, by which a line lies inside of its parabola.
_MEAN_SAGITTA = 1 / 12


def for_straight_lines(offsets: Field) -> Field:
    """Node values whose multilinear interpolation is nearest to the smooth field through them.

    A line between two points of a parabola lies inside of it, by `h^2 u'' t (1 - t) / 2`. Moved
    outwards by the mean of that, the nodes leave an error of 0.4 times the size. Rims and
    neighbours of unknown nodes stay.
    """
    out = offsets.copy()
    for axis in range(1, offsets.ndim):
        along = np.moveaxis(offsets, axis, -1)
        bend = along[..., 2:] - 2 * along[..., 1:-1] + along[..., :-2]
        inner = np.moveaxis(out, axis, -1)[..., 1:-1]
        inner -= _MEAN_SAGITTA * np.nan_to_num(bend)
    return out
