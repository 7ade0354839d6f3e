"""Displacements of overlapping chunks blended into one, never their pixels.

The weight of a chunk is 1 inside and falls to 0 at its rim; at every node the weights are divided
by their sum, so that they make a whole also where a neighbour is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box

Field = Float[np.ndarray, "d *nodes"]
Grid = Float[np.ndarray, "*nodes"]
# Its nodes, offsets there, weights there; chunks differ in shape.
Part = tuple[Box, Float[np.ndarray, "..."], Float[np.ndarray, "..."]]


@dataclass(frozen=True)
class Blended:
    """The field that chunks make together.

    Attributes:
        offsets: of all nodes; NaN where no chunk lies.
        disagreement: standard deviation, by weight, of what the chunks say; NaN where fewer than
            two do.
    """

    offsets: Field
    disagreement: Grid


def ramp(nodes: Box, region: Box, overlap: float, at: tuple[np.ndarray, ...]) -> Grid:
    """The weight of a chunk at its nodes.

    Args:
        nodes: its nodes, indices.
        region: voxels that it has looked at.
        overlap: width of the ramp, voxels.
        at: positions of all nodes along each axis, voxels.
    """
    weight = np.ones(nodes.shape)
    for axis, along in enumerate(at):
        here = along[nodes.start[axis] : nodes.stop[axis]]
        inside = np.minimum(here - region.start[axis], region.stop[axis] - 1 - here) + 1
        share = np.clip(inside / (overlap + 1), 0, 1)
        weight *= share.reshape([-1 if a == axis else 1 for a in range(len(at))])
    return weight


def blend(parts: Iterable[Part], shape: tuple[int, ...]) -> Blended:
    """The weighted mean of the parts, each a box of nodes with offsets and weights."""
    kept = list(parts)
    total, count = np.zeros(shape), np.zeros(shape, int)
    offsets = np.zeros((len(shape), *shape))
    for box, field, weight in kept:
        here = box.slices
        offsets[(slice(None), *here)] += weight * field
        total[here] += weight
        count[here] += weight > 0
    mean = np.where(total > 0, offsets / np.where(total > 0, total, 1), np.nan)
    spread = np.zeros(shape)
    for box, field, weight in kept:
        apart = ((field - mean[(slice(None), *box.slices)]) ** 2).sum(axis=0)
        spread[box.slices] += np.where(weight > 0, weight * apart, 0)
    deviation = np.sqrt(spread / np.where(total > 0, total, 1))
    return Blended(mean, np.where(count > 1, deviation, np.nan))
