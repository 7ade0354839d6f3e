"""What a rough comparison of two images found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box

_SIDE = 3  # points per axis that stand for a matrix


@dataclass(frozen=True)
class RoughMatch:
    """Where an image lies on another one.

    Attributes:
        matrix: `(3, 3)`, pixels of the fixed image to those of the moving one, yx.
        score: how sure it is, in standard deviations of what unrelated images reach; NaN and no
            matrix to go by where nothing was found.
        method: "ncc" or "sift".
    """

    matrix: affine.Matrix
    score: float
    method: str

    def points(
        self, fixed_shape: tuple[int, ...], moving_shape: tuple[int, ...]
    ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
        """Pairs of points that say what the matrix says, spread over the overlap."""
        back = affine.bounding_box(np.linalg.inv(self.matrix), Box.of_shape(moving_shape))
        shared = back & Box.of_shape(fixed_shape)
        share = (np.arange(_SIDE) + 0.5) / _SIDE
        axes = [a + share * (b - a) for a, b in zip(shared.start, shared.stop, strict=True)]
        at = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        return at, affine.apply(self.matrix, at)


def nothing(method: str) -> RoughMatch:
    """No match."""
    return RoughMatch(np.eye(3), float("nan"), method)
