"""What a tile may do: shift, turn, or deform affinely.

A small motion of a tile acts in the world about the tile's centre `u`:
`x -> x + G (x - u) + g`, where `G = sum_q theta_q E_q / radius` for the generators `E_q` of the
model. Turned this way round, a motion common to all tiles leaves every link as it is, for each
model, and `theta` is in voxels like `g`: that is how far the motion moves a tile's edge.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Model = Literal["translation", "rigid", "affine"]
Vectors = Float[np.ndarray, "m d"]
Blocks = Float[np.ndarray, "m k k"]


@dataclass(frozen=True)
class Motion:
    """The `k = q + d` parameters of a tile: `q` generators `(q, d, d)`, then the shift."""

    generators: Float[np.ndarray, "q d d"]
    radius: float
    rigid: bool

    @classmethod
    def of(cls, model: Model, ndim: int, radius: float) -> Motion:
        """The motion of a `model` in `ndim` dimensions; `radius`: half the size of a tile, px."""
        axes = range(ndim)
        entries: list[tuple[tuple[int, int], ...]] = []
        if model == "affine":
            entries = [((i, j),) for i in axes for j in axes]
        elif model == "rigid":
            entries = [((i, j), (j, i)) for i, j in itertools.combinations(axes, 2)]
        generators = np.zeros((len(entries), ndim, ndim))
        for number, entry in enumerate(entries):
            for value, place in zip((1.0, -1.0), entry, strict=False):
                generators[(number, *place)] = value
        return cls(generators, radius, model == "rigid")

    @property
    def ndim(self) -> int:
        return self.generators.shape[1]

    @property
    def size(self) -> int:
        return len(self.generators) + self.ndim

    @property
    def linear(self) -> bool:
        """Whether residuals are linear in the parameters: shifts only."""
        return len(self.generators) == 0

    def jacobian(self, lever: Vectors) -> Float[np.ndarray, "m d k"]:
        """How a point at `lever` from its tile's centre moves with the tile's parameters."""
        turned = np.einsum("qij,mj->miq", self.generators / self.radius, lever)
        shift = np.broadcast_to(np.eye(self.ndim), (*lever.shape, self.ndim))
        return np.concatenate([turned, shift], axis=2)

    def carried(self, offset: Vectors) -> Blocks:
        """A group's motion as that of a member whose centre is `offset` from the group's."""
        blocks = np.zeros((len(offset), self.size, self.size))
        turns = len(self.generators)
        blocks[:, range(turns), range(turns)] = 1.0
        blocks[:, turns:] = self.jacobian(offset)
        return blocks

    def moved(
        self, linear: Float[np.ndarray, "n d d"], step: Float[np.ndarray, "n k"]
    ) -> Float[np.ndarray, "n d d"]:
        """The linear parts after a `step`: `(1 + G) M`, for rigid motion `exp(G) M`."""
        if self.linear:
            return linear
        turns = len(self.generators)
        small = np.einsum("nq,qij->nij", step[:, :turns], self.generators / self.radius)
        return (_rotation(small) if self.rigid else np.eye(self.ndim) + small) @ linear


def _rotation(skew: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "n d d"]:
    """The exponential of skew matrices in 2-D or 3-D (Rodrigues)."""
    angle = np.sqrt((skew**2).sum(axis=(1, 2)) / 2)[:, None, None]
    return (
        np.eye(skew.shape[1])
        + np.sinc(angle / np.pi) * skew
        + (0.5 * np.sinc(angle / (2 * np.pi)) ** 2) * (skew @ skew)
    )
