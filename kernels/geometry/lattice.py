"""Regular lattices of nodes, at which flow is measured and coordinate maps are sampled.

Node `i` lies at `origin + i * stride`, in voxels, array order, voxel centres at integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box


@dataclass(frozen=True)
class Lattice:
    """Nodes at `origin + index * stride`.

    Attributes:
        origin: position of the first node, array order, voxels; may be fractional.
        stride: voxels between nodes, one per axis, positive.
        shape: nodes per axis.

    Raises:
        ValueError: ranks differ, a stride is not positive and finite, or there is no node.
    """

    origin: tuple[int | float, ...]
    stride: tuple[int | float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.origin) == len(self.stride) == len(self.shape):
            raise ValueError(
                f"origin {self.origin}, stride {self.stride} and shape {self.shape} differ in rank"
            )
        if not all(0 < s < math.inf for s in self.stride):
            raise ValueError(f"strides must be positive and finite, got {self.stride}")
        if not all(map(math.isfinite, self.origin)):
            raise ValueError(f"the origin must be finite, got {self.origin}")
        if min(self.shape, default=0) < 1:
            raise ValueError(f"a lattice needs at least one node on each axis, got {self.shape}")

    @classmethod
    def covering(cls, box: Box, stride: Sequence[int | float]) -> Lattice:
        """The nodes at whole multiples of the stride that surround every voxel of a box."""
        first = [math.floor(a / s) for a, s in zip(box.start, stride, strict=True)]
        last = [math.ceil((b - 1) / s) for b, s in zip(box.stop, stride, strict=True)]
        return cls(
            tuple(float(i * s) for i, s in zip(first, stride, strict=True)),
            tuple(map(float, stride)),
            tuple(max(j - i, 0) + 1 for i, j in zip(first, last, strict=True)),
        )

    @classmethod
    def of_patches(
        cls, shape: Sequence[int], patch: Sequence[int], stride: Sequence[int]
    ) -> Lattice:
        """The centres of the patches that lie wholly in an image, the first one in its corner.

        A patch of an even number of voxels has its centre halfway between two voxels, so the
        origin may end in .5.

        Raises:
            ValueError: ranks differ, or the image is smaller than one patch.
        """
        if not len(shape) == len(patch) == len(stride):
            raise ValueError(f"ranks differ: image {shape}, patch {patch}, stride {stride}")
        if any(p > n for p, n in zip(patch, shape, strict=True)):
            raise ValueError(
                f"a patch of {tuple(patch)} does not fit in an image of {tuple(shape)}"
            )
        return cls(
            tuple((p - 1) / 2 for p in patch),
            tuple(float(s) for s in stride),
            tuple((n - p) // s + 1 for n, p, s in zip(shape, patch, stride, strict=True)),
        )

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def along(self, axis: int) -> Float[np.ndarray, " n"]:
        """Positions of the nodes on one axis, voxels."""
        return self.origin[axis] + np.arange(self.shape[axis]) * self.stride[axis]

    def nodes(self) -> Float[np.ndarray, "d *lattice"]:
        """Positions of all nodes, `[component, (z,) y, x]`, voxels, float64."""
        return np.stack(np.meshgrid(*map(self.along, range(self.ndim)), indexing="ij"))

    def at_scale(self, factor: int | float | Sequence[int | float]) -> Lattice:
        """The same nodes in voxels of a `factor`-fold mean pyramid level, whose voxel 0 has its
        centre at `(factor - 1) / 2` of the full image; 1/2 for an image twice as fine. One factor
        for all axes, or one for each."""
        factors = (factor,) * self.ndim if isinstance(factor, int | float) else factor
        return Lattice(
            tuple((o - (k - 1) / 2) / k for o, k in zip(self.origin, factors, strict=True)),
            tuple(s / k for s, k in zip(self.stride, factors, strict=True)),
            self.shape,
        )

    def shift(self, by: Sequence[int | float]) -> Lattice:
        """The same nodes moved."""
        origin = tuple(o + s for o, s in zip(self.origin, by, strict=True))
        return Lattice(origin, self.stride, self.shape)

    def crop(self, nodes: Box) -> Lattice:
        """The nodes of a box of node indices."""
        start = zip(self.origin, nodes.start, self.stride, strict=True)
        return Lattice(tuple(o + i * s for o, i, s in start), self.stride, nodes.shape)
