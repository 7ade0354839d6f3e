"""Where the tissue of one section lies in another: flow, and a sheet that bends through it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Num

from warpbeam.kernels.flow.clean import CleanSettings, trusted
from warpbeam.kernels.flow.field import FlowSettings, flow
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.linear.pearson import pearson
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, identity, on_lattice
from warpbeam.kernels.mesh.smoothing import relax_smooth
from warpbeam.kernels.warp.image import warp_image
from warpbeam.kernels.warp.source import Source

# Share of the nodes with a clear vector, below which there is nothing to go by.
_LEAST_TRUSTED = 0.2
Grey = Float32[np.ndarray, "y x"]


def section_map(
    first: Num[np.ndarray, "y x"], second: Num[np.ndarray, "y x"], settings: FlowSettings
) -> CoordinateMap:
    """The map from one section to another of the same shape, on nodes all over it.

    As stiff as the flow asks for. Where few vectors can be trusted, or the sections do not
    resemble each other more with the map than without, it is the identity: a wrong map links
    worse than none.
    """
    images = first.astype(np.float32), second.astype(np.float32)
    lattice = Lattice.covering(Box.of_shape(first.shape), settings.stride)
    still = identity(lattice)
    found = flow(*images, settings, lattice=lattice)
    # Ambiguous vectors agree with their neighbours all the same, and help where others are few;
    # but where most are ambiguous the sections have nothing in common.
    if trusted(found, CleanSettings()).mean() < _LEAST_TRUSTED:
        return still
    mesh = relax_smooth(found.vectors.astype(np.float64), lattice.stride)
    m = on_lattice(np.nan_to_num(mesh.offsets), lattice)
    with_map, without = pearson(images[0], _drawn(images[1], m)), pearson(*images)
    # a correlation that says nothing (NaN) is worse than any
    return m if np.nan_to_num(with_map, nan=-1.0) > np.nan_to_num(without, nan=-1.0) else still


def _drawn(image: Grey, m: CoordinateMap) -> Grey:
    box = Box.of_shape(image.shape)
    return warp_image(Source.whole(image), m, box, background=np.nan)
