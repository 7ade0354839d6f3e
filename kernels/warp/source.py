"""The image that is read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from warpbeam.kernels.geometry.box import Box


@dataclass(frozen=True)
class Source:
    """The part of an image, or of a stack of them, that was loaded.

    Attributes:
        pixels: `[..., (z,) y, x]`; leading axes hold sections, channels.
        window: the voxels held, in the frame the map leads to.
        extent: the voxels that exist. The border is repeated to half a voxel beyond it, and
            there is background further out.

    Raises:
        ValueError: the pixels do not fill the window, or it is not a part of the extent.
    """

    pixels: Shaped[np.ndarray, "..."]
    window: Box
    extent: Box

    def __post_init__(self) -> None:
        if self.pixels.shape[-self.window.ndim :] != self.window.shape:
            raise ValueError(
                f"pixels {self.pixels.shape} do not fill a window of {self.window.shape}"
            )
        if self.window and not self.extent.contains(self.window):
            raise ValueError(f"the window {self.window} is not a part of {self.extent}")

    @classmethod
    def whole(cls, pixels: Shaped[np.ndarray, "..."], ndim: int = 2) -> Source:
        """A whole image, whose first voxel is the origin."""
        box = Box.of_shape(pixels.shape[-ndim:])
        return cls(pixels, box, box)

    def crop(self, index: tuple[int, ...], window: Box) -> Shaped[np.ndarray, "..."]:
        """The voxels of a window of one image.

        Raises:
            ValueError: they were not loaded.
        """
        if window and not self.window.contains(window):
            raise ValueError(f"the source holds {self.window}, but {window} is needed")
        place: tuple[int | slice, ...] = (*index, *window.slices_in(self.window))
        return self.pixels[place]
