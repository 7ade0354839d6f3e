"""How well a field predicts matches that it was not solved from.

What a field leaves of its own matches says how much it gives way to them, not how right it is.
Small clumps of nodes are left out of a solve of their own, so that no window of those that stay
looks at much of what the middle of a clump sees; the middle's match is the witness:

    . . . . . .
    . o o o . .      o  left out
    . o x o . .      x  left out, and compared
    . o o o . .      .  kept
    . . . . . .
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from jaxtyping import Bool

from warpbeam.kernels.register.joint_field import Field, Grid, Information, solve_field

_PERIOD = 6


def held_out(
    target: Field,
    information: Information,
    stride: tuple[float, ...],
    *,
    bending_px: float,
    start: Field | None = None,
) -> Grid:
    """How far the matches in the middle of the clumps are from the field of all others, voxels.

    NaN at the other nodes, and everywhere where too little is left to solve from. Arguments as of
    `joint_field.solve_field`.
    """
    nodes = target.shape[1:]
    out, middle = clumps(nodes)
    rest = np.where(out, np.nan, target)
    found = np.full(nodes, np.nan)
    if np.isfinite(rest).all(axis=0).any():
        field = solve_field(rest, information, stride, bending_px=bending_px, start=start)
        apart = np.linalg.norm(field.offsets - target, axis=0)
        found[middle] = apart[middle]
    return found


def clumps(nodes: tuple[int, ...]) -> tuple[Bool[np.ndarray, "*nodes"], Bool[np.ndarray, "*nodes"]]:
    """The nodes that are left out, and their middles."""
    away = []
    for n in nodes:
        middles = np.arange(min(_PERIOD // 2, n // 2), n, _PERIOD)
        away.append(np.abs(np.subtract.outer(np.arange(n), middles)).min(axis=1))
    furthest = reduce(np.maximum.outer, away)
    return furthest <= 1, furthest == 0
