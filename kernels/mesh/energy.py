"""The energy that a mesh minimises: springs, bending, and data springs to its targets.

`E(u) = sum of spring energies + bending + sum of w/2 |u - target|^2`
for node offsets `u`, px. The weight `w` of a target plays the part of its spring constant; only
its ratio to the other two terms matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from warpbeam.kernels.mesh.bending import bending_forms
from warpbeam.kernels.mesh.lattice import Form, add_product, existing
from warpbeam.kernels.mesh.springs import Expansion, Springs, links

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]


@dataclass(frozen=True)
class Elasticity:
    """What a mesh is made of.

    Attributes:
        stride: px between nodes, (z,) y, x.
        spring: constant of the springs along x, see `springs`; 0 for none.
        bending_px: wavelength of which bending leaves half to data of weight 1, see `bending`.
        ordered: springs that have no folded minimum, see `springs`.
    """

    stride: tuple[float, ...]
    spring: float = 0.0
    bending_px: float = 0.0
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(self.stride) not in (2, 3) or min(self.stride) <= 0:
            raise ValueError(f"a mesh needs 2 or 3 positive strides, got {self.stride}")
        if min(self.spring, self.bending_px) < 0 or self.spring + self.bending_px == 0:
            raise ValueError(
                "a mesh needs springs or bending, and neither may be negative:"
                f" got spring {self.spring}, bending_px {self.bending_px}"
            )

    def forms(self) -> tuple[Form, ...]:
        """The energy for small offsets, as squares of linear forms."""
        springs = links(self.stride, self.spring) if self.spring else ()
        return (
            *(link.form() for link in springs),
            *bending_forms(self.stride, self.bending_px, len(self.stride)),
        )


class MeshEnergy:
    """The energy over the nodes of one lattice.

    Args:
        elasticity: the material.
        shape: nodes on each axis.
        active: nodes that exist; None for all. A spring or a bending term exists where all its
            nodes do.
    """

    def __init__(
        self,
        elasticity: Elasticity,
        shape: Sequence[int],
        active: Bool[np.ndarray, "*grid"] | None = None,
    ) -> None:
        if len(shape) != len(elasticity.stride):
            raise ValueError(f"mesh of shape {tuple(shape)} with strides {elasticity.stride}")
        if active is not None and active.all():
            active = None
        self.elasticity, self.shape, self.active = elasticity, tuple(shape), active
        families = links(elasticity.stride, elasticity.spring) if elasticity.spring else ()
        self.springs = Springs(families, shape, ordered=elasticity.ordered, active=active)
        self._bending = bending_forms(elasticity.stride, elasticity.bending_px, len(shape))
        self._whole = None if active is None else existing(self._bending, active)

    def value(self, offsets: Field, target: Field, weight: Grid) -> float:
        """The energy; `target` is finite also where `weight` is 0."""
        pull = self._bent(offsets) * offsets
        pull += weight * (offsets - target) ** 2
        return self.springs.energy(offsets) + 0.5 * float(pull.sum())

    def expand(self, offsets: Field, target: Field, weight: Grid) -> tuple[Expansion, Field]:
        """The springs' quadratic model, and the gradient of the whole energy."""
        model = self.springs.expand(offsets)
        bent = self._bent(offsets)
        bent += model.gradient
        bent += weight * (offsets - target)
        return model, bent

    def product(self, model: Expansion, weight: Grid, x: Field) -> Field:
        """The curvature of the whole energy times `x`."""
        out = weight * x
        add_product(self._bending, x, out, self._whole)
        self.springs.add_product(model, x, out)
        return out

    def held(self, weight: Grid) -> Bool[np.ndarray, "*grid"]:
        """The nodes that hang together with at least one target."""
        there = np.ones(self.shape, bool) if self.active is None else self.active
        parts, _ = ndimage.label(there, np.ones((3,) * len(self.shape)))
        known = np.unique(parts[there & (weight > 0)])
        return there & np.isin(parts, known)

    def _bent(self, offsets: Field) -> Field:
        out = np.zeros_like(offsets)
        add_product(self._bending, offsets, out, self._whole)
        return out
