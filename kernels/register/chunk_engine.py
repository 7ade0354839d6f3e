"""Dense registration of one chunk by an engine from elsewhere, with as much work as it needs.

The moving chunk lies on the fixed chunk's voxels already, drawn through the map so far; what an
engine finds is what that map is off. What engines cannot judge is recognised first: they fail on
constant images, and return garbage for thin slabs without an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.register.ceiling import alike, ceiling
from warpbeam.kernels.warp.image import warp_image
from warpbeam.kernels.warp.source import Source

Volume = Float32[np.ndarray, "z y x"]
Displacement = Float32[np.ndarray, "3 z y x"]
Accuracy = Literal["dry", "low", "medium", "high"]

_ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)
_LEAST_SIDE = 16
_WINDOW = (16.0,) * 3  # in which chunks are compared, voxels
_GOOD = 0.98  # of what the noise lets chunks be alike
_LEAST_KNOWN = 0.2
_LEAST_DEVIATION = 1e-3  # of the mean


@runtime_checkable
class ChunkEngine(Protocol):
    """What registers chunks: a frozen dataclass of its settings, which travels to the workers."""

    @property
    def accuracy(self) -> Accuracy:
        """How much work a chunk gets at first."""

    def displacement(self, fixed: Volume, moving: Volume, accuracy: Accuracy) -> Displacement:
        """The displacement `u` with `fixed(p) ~ moving(p + u(p))`, voxels, zyx.

        Args:
            fixed, moving: of one shape; NaN = no data.

        Raises:
            RuntimeError: the engine failed.
        """


@dataclass(frozen=True)
class Improved:
    """What an engine made of two chunks.

    Attributes:
        displacement: as of `ChunkEngine`; None where the engine makes the chunks no more alike.
        accuracy: with which that was found.
        before, after: how alike the chunks were and are, see `kernels.register.ceiling`.
    """

    displacement: Displacement | None
    accuracy: Accuracy | None
    before: float
    after: float


def unfit(fixed: Volume, moving: Volume) -> str | None:
    """Why no engine should see this chunk; None where it may."""
    if min(fixed.shape) < _LEAST_SIDE:
        return "thin"
    for name, volume in (("fixed", fixed), ("moving", moving)):
        known = volume[np.isfinite(volume)]
        if known.size < _LEAST_KNOWN * volume.size:
            return f"little of the {name} volume"
        if not known.std() > _LEAST_DEVIATION * max(abs(float(known.mean())), 1e-6):
            return f"constant {name} volume"
    return None


def improved(fixed: Volume, moving: Volume, engine: ChunkEngine) -> Improved:
    """What the engine finds, and only where it makes the chunks more alike.

    Chunks that are nearly as alike as their noise lets them get one accuracy less; where the
    engine makes them no more alike it is tried again with the highest, and then they are left out.
    """
    before = after = alike(fixed, moving, _WINDOW)
    first = _ACCURACIES.index(engine.accuracy)
    if first > 1 and before >= _GOOD * ceiling(fixed, moving, _WINDOW):
        first -= 1
    for accuracy in dict.fromkeys((_ACCURACIES[first], _ACCURACIES[-1])):
        found = engine.displacement(fixed, moving, accuracy)
        if not np.isfinite(found).all():
            continue
        after = alike(fixed, moved(moving, found), _WINDOW)
        if after > before:
            return Improved(found, accuracy, before, after)
    return Improved(None, None, before, after)


def moved(moving: Volume, displacement: Displacement) -> Volume:
    """`moving(p + u(p))`, linear; NaN where that is not known."""
    whole = Box.of_shape(moving.shape)
    m = CoordinateMap(displacement, (0.0,) * 3, (1.0,) * 3)
    return warp_image(Source(moving, whole, whole), m, whole, background=float("nan"))


def filled(volume: Volume) -> Volume:
    """The volume with the mean of what is known where nothing is."""
    known = np.isfinite(volume)
    return np.where(known, volume, volume[known].mean()).astype(np.float32)
