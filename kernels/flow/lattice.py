"""Where the vectors of a flow sit: a regular lattice of patch centres.

Node `i` lies at `origin + i * stride` in voxels of the fixed image (array order, voxel centres
at integers), and is the centre of a patch. A patch of an even number of voxels has its centre
halfway between two voxels, so `origin` may end in .5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Lattice:
    """`origin` and `stride` in voxels, `shape` in nodes; array order."""

    origin: tuple[float, ...]
    stride: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.origin) == len(self.stride) == len(self.shape):
            raise ValueError(
                f"ranks differ: origin {self.origin}, stride {self.stride}, shape {self.shape}"
            )
        if any(s <= 0 for s in self.stride) or any(n < 0 for n in self.shape):
            raise ValueError(f"stride {self.stride} and shape {self.shape} must be positive")

    def positions(self) -> Float[np.ndarray, "d *nodes"]:
        """The coordinates of every node."""
        axes = [self.axis(a) for a in range(len(self.shape))]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def axis(self, axis: int) -> Float[np.ndarray, " n"]:
        """The coordinates of the nodes along one axis."""
        return self.origin[axis] + self.stride[axis] * np.arange(self.shape[axis], dtype=float)

    def at_scale(self, factor: int) -> Lattice:
        """The same nodes in voxels of a `factor`-fold mean pyramid level, whose voxel 0 has its
        centre at `(factor - 1) / 2` of the full image."""
        return Lattice(
            tuple((o - (factor - 1) / 2) / factor for o in self.origin),
            tuple(s / factor for s in self.stride),
            self.shape,
        )


def patch_lattice(shape: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> Lattice:
    """The centres of the patches that lie wholly in an image, the first one in its corner.

    Raises:
        ValueError: ranks differ, or the image is smaller than one patch.
    """
    if not len(shape) == len(patch) == len(stride):
        raise ValueError(f"ranks differ: image {shape}, patch {patch}, stride {stride}")
    if any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ValueError(f"a patch of {tuple(patch)} does not fit in an image of {tuple(shape)}")
    return Lattice(
        tuple((p - 1) / 2 for p in patch),
        tuple(float(s) for s in stride),
        tuple((n - p) // s + 1 for n, p, s in zip(shape, patch, stride, strict=True)),
    )
