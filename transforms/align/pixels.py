"""Sections as they are drawn: without what is masked, and evened out where that is asked for."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import Contrast, Range, evened, support
from warpbeam.kernels.warp.cast import cast
from warpbeam.transforms.grey import sampled_range, with_nan, within_type
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource

Pixels = np.ndarray[Any, Any]


class SectionPixels:
    """Reads sections of a run to draw them; one per worker.

    Args:
        run: the run.
        background: grey value of masked pixels.
        contrast: how it is evened out.
        contrast_px: size of its neighbourhoods.
    """

    def __init__(
        self, run: RunFolder, background: float, contrast: Contrast, contrast_px: int
    ) -> None:
        self._tiles, self._background = TileReader(run), background
        self._how, self._size = contrast, contrast_px
        self._range = functools.lru_cache(maxsize=256)(self._grey_range)

    def read(self, source: TileSource, channel: int, box: Box) -> Pixels:
        """The pixels of a box of a section, of its own type."""
        around = support(box, self._how, self._size) & Box.of_shape(source.shape)
        pixels, mask = self._tiles.valid(source, channel, around)
        if self._how != "none":
            grey = self._range(source, channel, pixels.dtype)
            known = with_nan(pixels, mask)
            even = evened(known, self._how, self._size, grey, around.start)
            pixels = cast(np.where(np.isnan(even), self._background, even), pixels.dtype)
        elif mask is not None:
            pixels = np.where(mask, pixels, np.asarray(self._background, pixels.dtype))
        return pixels[box.slices_in(around)]

    def _grey_range(self, source: TileSource, channel: int, dtype: np.dtype[Any]) -> Range:
        """The range of a section, as far as its type reaches."""

        def known(box: Box) -> Float32[np.ndarray, "y x"]:
            return with_nan(*self._tiles.valid(source, channel, box))

        return within_type(sampled_range(known, source.shape), dtype)
