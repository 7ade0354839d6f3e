"""Where a mesh folds, and a stiffer second try.

A cell is irregular where the map turns it over or squeezes or stretches it beyond limits. Targets
that ask for that are not believed: around it they lose weight, and the mesh is solved again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.irregular import irregular
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.robust import RobustMesh, relax_robust

Field = Float[np.ndarray, "c *grid"]
Nodes = Bool[np.ndarray, "*grid"]
Targets = Float[np.ndarray, "r c *grid"]
Weights = Float[np.ndarray, "r *grid"]


class Shape(enum.StrEnum):
    """What became of a mesh."""

    REGULAR = "regular"
    STIFFENED = "stiffened"  # regular after targets near a fold had lost weight
    FOLDED = "folded"  # irregular cells are left


@dataclass(frozen=True)
class Limits:
    """What a regular cell may look like, and how hard irregular ones are tried again.

    Attributes:
        least, most: distance of neighbouring nodes, as a share of the stride.
        radius: nodes around irregular ones whose targets lose weight in the first retry; twice
            as many in the second, and so on; in the last all.
        weaker: factor of their weight.
        retries: at most.
    """

    least: float = 0.5
    most: float = 2.0
    radius: int = 3
    weaker: float = 0.1
    retries: int = 3


def relax_unfolded(
    targets: Targets,
    elasticity: Elasticity,
    limits: Limits,
    *,
    weight: Weights | None = None,
    start: Field | None = None,
    active: Nodes | None = None,
) -> tuple[RobustMesh, Shape]:
    """The robust mesh, tried again with weaker targets while it is irregular.

    Retries use ordered springs, which have no folded minimum, and start from rest. If all fail
    the first mesh is returned, as folded.

    Raises:
        ValueError: as `relax_robust`.
    """
    weight = np.ones((len(targets), *targets.shape[2:])) if weight is None else weight.copy()
    first = relax_robust(targets, elasticity, weight=weight, start=start, active=active)
    bad = _irregular(first.offsets, elasticity, limits, around=limits.radius)
    if not bad.any():
        return first, Shape.REGULAR
    ordered = replace(elasticity, ordered=True)
    weaker = np.zeros(weight.shape[1:], bool)
    for attempt in range(1, limits.retries + 1):
        last = attempt == limits.retries
        weaker |= bad
        weight *= np.where(weaker | last, limits.weaker, 1.0)
        start = _level(targets)
        mesh = relax_robust(targets, ordered, weight=weight, start=start, active=active)
        bad = _irregular(mesh.offsets, elasticity, limits, around=limits.radius * (attempt + 1))
        if not bad.any():
            return mesh, Shape.STIFFENED
    return first, Shape.FOLDED


def _irregular(offsets: Field, elasticity: Elasticity, limits: Limits, *, around: int) -> Nodes:
    mesh = CoordinateMap(offsets, (0.0,) * len(offsets), elasticity.stride)
    return irregular(mesh, limits.least, limits.most, dilate=around)


def _level(targets: Targets) -> Field:
    """A mesh at rest in the middle of its targets."""
    known = np.isfinite(targets).all(axis=1)
    middle = [np.median(targets[:, c][known]) for c in range(targets.shape[1])]
    level = np.empty(targets.shape[1:])
    level[:] = np.reshape(middle, (-1,) + (1,) * (level.ndim - 1))
    return level
