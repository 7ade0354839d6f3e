"""What is done to a tile's grey values so that they compare with its neighbours'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from warpbeam.kernels.geometry.box import Box


@dataclass(frozen=True)
class Shading:
    """`(pixel - dark) / flat * gain + offset`.

    Attributes:
        flat: `(y, x)` of the whole tile, mean 1; None for an even field. Planes of a
            three-dimensional tile share it.
        dark: grey level without light.
        gain, offset: of this tile beside the others.
    """

    flat: Float[np.ndarray, "y x"] | None = None
    dark: float = 0.0
    gain: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        return self.flat is None and (self.dark, self.gain, self.offset) == (0.0, 1.0, 0.0)

    def correct(self, pixels: Num[np.ndarray, "..."], window: Box) -> Float[np.ndarray, "..."]:
        """The corrected float32 pixels of `window`, in voxels of the tile. NaN stays NaN."""
        out = pixels.astype(np.float32)
        if self.dark != 0.0:
            out -= np.float32(self.dark)
        if self.flat is not None:
            out /= self.flat[window.slices[-2:]]
        if self.gain != 1.0:
            out *= np.float32(self.gain)
        if self.offset != 0.0:
            out += np.float32(self.offset)
        return out
