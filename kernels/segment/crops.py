"""A square around each object, cut out of every channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

Image = Shaped[np.ndarray, "y x"]


def crops(
    images: Sequence[Image],
    y: Float[np.ndarray, " n"],
    x: Float[np.ndarray, " n"],
    side: int,
) -> Shaped[np.ndarray, "n channels side side"]:
    """The pixels around the centres `y`, `x` (pixels); 0 outside the images.

    The pixel nearest to a centre is pixel `side // 2` of its square. The images have one shape and
    dtype.
    """
    low = np.rint(np.stack([y, x], axis=-1)).astype(int) - side // 2
    out = np.zeros((len(low), len(images), side, side), images[0].dtype)
    shape = np.array(images[0].shape)
    for square, first in zip(out, low, strict=True):
        start, stop = np.clip(first, 0, shape), np.clip(first + side, 0, shape)
        source = tuple(map(slice, start, stop))
        target = tuple(map(slice, start - first, stop - first))
        for channel, image in enumerate(images):
            square[(channel, *target)] = image[source]
    return out
