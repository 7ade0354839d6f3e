"""Dense registration of one chunk by ANTs (Avants et al. 2008, doi 10.1016/j.media.2007.06.004).

The moving chunk lies on the fixed chunk's voxels already, drawn through the map so far; what
ANTs finds is what that map is off. What ANTs cannot judge is recognised first: it fails on
constant images, and returns garbage for thin slabs without an error.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.register.ceiling import alike, ceiling
from warpbeam.kernels.warp.image import warp_image
from warpbeam.kernels.warp.source import Source

Volume = Float32[np.ndarray, "z y x"]
SynTransform = Literal["SyNOnly", "SyN", "Elastic", "BSplineSyN"]
SynPreset = Literal["dry", "low", "medium", "high"]
SynMetric = Literal["mattes", "CC"]

# Iterations from the coarsest level to the finest. One at full size costs as much as eight at half.
_ITERATIONS: dict[SynPreset, tuple[int, ...]] = {
    "dry": (1, 0, 0),
    "low": (20, 10, 0),
    "medium": (40, 20, 0),
    "high": (100, 70, 20),
}
_SAMPLING = {"mattes": 32, "CC": 2}  # bins of the histogram; radius of the neighbourhood
_LEAST_SIDE = 16
_WINDOW = (16.0,) * 3  # in which chunks are compared, voxels
_GOOD = 0.98  # of what the noise lets chunks be alike
_LEAST_KNOWN = 0.2
_LEAST_DEVIATION = 1e-3  # of the mean


@dataclass(frozen=True)
class SynSettings:
    """Attributes:
    transform: model of the deformation; "SyN" and "Elastic" fit an affine map first, which ANTs
        samples at random: two runs differ. "BSplineSyN" has ANTs' own iterations and metric: those
        of its quick script, or at preset "high" of the whole one.
    preset: how many iterations.
    metric: mutual information, or local correlation.
    """

    transform: SynTransform
    preset: SynPreset
    metric: SynMetric


@dataclass(frozen=True)
class Improved:
    """Attributes:
    displacement: as of `syn`; None where ANTs makes the chunks no more alike.
    preset: that made it.
    before, after: how alike the chunks were and are, see `kernels.register.ceiling`.
    """

    displacement: Float32[np.ndarray, "3 z y x"] | None
    preset: SynPreset | None
    before: float
    after: float


def unfit(fixed: Volume, moving: Volume) -> str | None:
    """Why ANTs should not see this chunk; None where it may."""
    if min(fixed.shape) < _LEAST_SIDE:
        return "thin"
    for name, volume in (("fixed", fixed), ("moving", moving)):
        known = volume[np.isfinite(volume)]
        if known.size < _LEAST_KNOWN * volume.size:
            return f"little of the {name} volume"
        if not known.std() > _LEAST_DEVIATION * max(abs(float(known.mean())), 1e-6):
            return f"constant {name} volume"
    return None


def syn(fixed: Volume, moving: Volume, settings: SynSettings) -> Float32[np.ndarray, "3 z y x"]:
    """The displacement `u` with `fixed(p) ~ moving(p + u(p))`, voxels.

    Args:
        fixed, moving: of one shape; NaN = no data, filled with the mean, and masked in `fixed`.
        settings: of ANTs.

    Raises:
        RuntimeError: ANTs failed.
    """
    import ants  # type: ignore[import-untyped]

    images = [ants.from_numpy(_filled(volume)) for volume in (fixed, moving)]
    known = np.isfinite(fixed)
    mask = None if known.all() else ants.from_numpy(known.astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:  # ANTs leaves its files behind
        found = ants.registration(
            *images,
            type_of_transform=_name(settings),
            initial_transform="Identity",
            outprefix=f"{folder}/",
            mask=mask,
            reg_iterations=_ITERATIONS[settings.preset],
            syn_metric=settings.metric,
            syn_sampling=_SAMPLING[settings.metric],
            singleprecision=True,
        )
        path = ants.apply_transforms(
            *images, found["fwdtransforms"], compose=f"{folder}/total_", singleprecision=True
        )
        field = ants.image_read(path).numpy()
    return np.ascontiguousarray(np.moveaxis(field, -1, 0), np.float32)


def _name(settings: SynSettings) -> str:
    """What ANTs calls the transform."""
    if settings.transform != "BSplineSyN":
        return settings.transform
    return f"antsRegistrationSyN{'' if settings.preset == 'high' else 'Quick'}[bo]"


def improved(fixed: Volume, moving: Volume, settings: SynSettings) -> Improved:
    """`syn` with as much work as a chunk needs, and only where it makes the chunks more alike.

    Chunks that are nearly as alike as their noise lets them get one preset less; where ANTs makes
    them no more alike it is tried again with the highest preset, and then left out.
    """
    before = alike(fixed, moving, _WINDOW)
    presets = list(_ITERATIONS)
    first = presets.index(settings.preset)
    if first > 1 and before >= _GOOD * ceiling(fixed, moving, _WINDOW):
        first -= 1
    for preset in dict.fromkeys((presets[first], presets[-1])):
        found = syn(fixed, moving, replace(settings, preset=preset))
        after = alike(fixed, moved(moving, found), _WINDOW)
        if not after <= before:
            return Improved(found, preset, before, after)
    return Improved(None, None, before, after)


def moved(moving: Volume, displacement: Float32[np.ndarray, "3 z y x"]) -> Volume:
    """`moving(p + u(p))`, linear; NaN where that is not known."""
    whole = Box.of_shape(moving.shape)
    m = CoordinateMap(displacement, (0.0,) * 3, (1.0,) * 3)
    return warp_image(Source(moving, whole, whole), m, whole, background=float("nan"))


def _filled(volume: Volume) -> Volume:
    known = np.isfinite(volume)
    return np.where(known, volume, volume[known].mean()).astype(np.float32)
