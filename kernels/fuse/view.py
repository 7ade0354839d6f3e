"""The pixels of one tile that are at hand, and where they belong."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Num, Shaped

from warpbeam.kernels.fuse.bend import Bend
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading

# A tile whose inscribed box is this long beside its outline counts as not turned.
_UPRIGHT = 0.96
# What OpenCV warps without a conversion.
_CV2_DTYPES = (np.uint8, np.uint16, np.int16, np.float32)


@dataclass(frozen=True)
class TileView:
    """A window of one tile.

    Attributes:
        pixels: the window, `yx` or `zyx`, in the dtype of the source.
        window: which voxels of the tile `pixels` holds.
        shape: shape of the whole tile, which the blending weights refer to.
        matrix: homogeneous map from voxels of the tile to voxels of the output.
        mask: True where the tile is valid, over `window`; None means everywhere.
        shading: grey value correction.
        bend: how the tile is bent before the matrix places it; None means not at all.
    """

    pixels: Num[np.ndarray, "..."]
    window: Box
    shape: tuple[int, ...]
    matrix: Float[np.ndarray, "d1 d1"]
    mask: Shaped[np.ndarray, "..."] | None = None
    shading: Shading = field(default_factory=Shading)
    bend: Bend | None = None

    @functools.cached_property
    def inverse(self) -> affine.Matrix:
        """Output voxels to voxels of the tile."""
        return np.linalg.inv(self.matrix)

    @property
    def reach(self) -> int:
        """How far, in voxels of the tile, bending moves a voxel."""
        return 0 if self.bend is None else self.bend.reach

    @functools.cached_property
    def footprint(self) -> Box:
        """The output voxels that the tile's area, half a voxel around its centres, can reach."""
        area = Box.of_shape(self.shape).pad((1 + self.reach,) * len(self.shape))
        return affine.bounding_box(self.matrix, area)

    @functools.cached_property
    def upright(self) -> Box | None:
        """The output voxels surely inside the tile, if that is nearly all of it; else None."""
        if self.bend is not None:
            return None
        inner = affine.inscribed_box(self.matrix, Box.of_shape(self.shape))
        spans = zip(inner.shape, self.footprint.shape, strict=True)
        return inner if all(a > _UPRIGHT * b for a, b in spans) else None

    def crop(self, box: Box, *, exact: bool = False) -> tuple[Num[np.ndarray, "..."], Box]:
        """Corrected float32 pixels of the part of `box` that is at hand, and that part.

        With `exact` pixels that need no correction stay in their dtype.
        """
        part = box & self.window
        pixels = self.pixels[part.slices_in(self.window)]
        if exact and self.shading.is_identity and pixels.dtype in _CV2_DTYPES:
            return pixels, part
        return self.shading.correct(pixels, part), part

    def crop_mask(self, box: Box) -> Float[np.ndarray, "..."]:
        """The mask of a box inside the window, as float32 0 and 1."""
        if self.mask is None:
            return np.ones(box.shape, np.float32)
        return self.mask[box.slices_in(self.window)].astype(np.float32)


def source_box(inverse: affine.Matrix, shape: tuple[int, ...], target: Box, margin: int) -> Box:
    """The voxels of a tile that rendering `target` (output voxels) needs; may be empty."""
    ndim = target.ndim
    if not affine.is_affine(inverse):  # beyond its horizon a perspective map turns around
        tile = Box.of_shape(shape).pad((1 + margin,) * ndim)
        target = target & affine.bounding_box(np.linalg.inv(inverse), tile)
    reached = affine.bounding_box(inverse, target.pad((1,) * ndim)).pad((margin,) * ndim)
    return reached & Box.of_shape(shape)
