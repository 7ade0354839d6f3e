"""The flow between two placed tiles where they overlap, as pairs of points.

It is measured at the nodes of the first tile's own mesh. What the placement does not say in
whole pixels goes into the field that the search starts from, so that neither tile is
resampled. Images are padded to shapes that repeat, and lie along the same axis, so that few
programs are compiled however the tiles lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from warpbeam.kernels.flow.clean import CleanSettings, trusted
from warpbeam.kernels.flow.field import FlowSettings, flow
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice

Image = Float32[np.ndarray, "..."]
Mask = Bool[np.ndarray, "..."]
Points = Float[np.ndarray, "n d"]

_BUCKET = {2: 128, 3: 32}


@dataclass(frozen=True)
class Overlap:
    """Where two tiles overlap.

    Attributes:
        between: homogeneous map from voxels of the first tile to voxels of the second.
        common: voxels of the first tile that the second can cover.
        fixed: voxels of the first tile to look at; starts at a node.
        moving: voxels of the second tile to look at.
        shift: the same as `between`, in whole voxels.
    """

    between: affine.Matrix
    common: Box
    fixed: Box
    moving: Box
    shift: tuple[int, ...]

    @property
    def turned(self) -> bool:
        """Whether y is longer than x."""
        return self.fixed.shape[-2] > self.fixed.shape[-1]


@dataclass(frozen=True)
class Matched:
    """Points of both tiles, in their voxels, and how many nodes there were."""

    p: Points
    q: Points
    nodes: int


def overlap(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    between: affine.Matrix,
    settings: FlowSettings,
) -> Overlap | None:
    """What must be read of two tiles of the given shapes; None where they do not meet."""
    first, second = map(Box.of_shape, shapes)
    common = affine.bounding_box(np.linalg.inv(between), second) & first
    if not common:
        return None
    middle = (np.add(common.start, common.stop)[None] - 1) / 2
    shift = np.rint(affine.apply(between, middle) - middle)[0].astype(int).tolist()
    around = common.pad(settings.search)
    start = tuple(a // s * s for a, s in zip(around.start, settings.stride, strict=True))
    around = Box(start, around.stop)
    return Overlap(between, common, around & first, around.shift(shift) & second, tuple(shift))


def match_overlap(
    found: Overlap,
    fixed: tuple[Image, Mask | None],
    moving: tuple[Image, Mask | None],
    settings: FlowSettings,
    clean: CleanSettings,
) -> Matched:
    """Measures the points of the second tile that show what the nodes of the first one do.

    Args:
        found: which voxels were read.
        fixed, moving: those of `found.fixed` and `found.moving`, and which of them are valid.
        settings: lengths in voxels; the stride is that of the first tile's nodes.
        clean: which vectors are believed.
    """
    ndim = found.fixed.ndim
    origin = found.fixed.start
    shape = [-(-n // _BUCKET[ndim]) * _BUCKET[ndim] for n in found.fixed.shape]
    lattice = Lattice(
        (0.0,) * ndim, tuple(map(float, settings.stride)),
        tuple(-(-n // s) for n, s in zip(shape, settings.stride, strict=True)),
    )  # fmt: skip
    p = lattice.nodes() + np.reshape(origin, (-1, *[1] * ndim))
    ends = zip(p, found.common.start, found.common.stop, strict=True)
    inside = np.all([(x >= a) & (x < b) for x, a, b in ends], axis=0)
    flat = p.reshape(ndim, -1).T
    start = (affine.apply(found.between, flat) - flat - found.shift).T.reshape(p.shape)
    images = (
        _placed(*fixed, found.fixed.relative_to(origin), shape),
        _placed(*moving, found.moving.relative_to(found.fixed.shift(found.shift).start), shape),
    )
    vectors, good = _flow(images, lattice, start, inside, settings, clean,
                          turned=found.turned)  # fmt: skip
    points = p[:, good].T
    return Matched(points, points + found.shift + vectors[:, good].T, int(inside.sum()))


def _placed(values: Image, mask: Mask | None, box: Box, shape: list[int]) -> Image:
    """The valid voxels on an image of `shape`, NaN elsewhere."""
    out = np.full(shape, np.nan, np.float32)
    part = box & Box.of_shape(shape)
    inside = part.slices_in(box)
    out[part.slices] = values[inside]
    if mask is not None:
        out[part.slices][~mask[inside]] = np.nan
    return out


def _flow(
    images: tuple[Image, Image],
    lattice: Lattice,
    start: Float[np.ndarray, "d *nodes"],
    selection: Bool[np.ndarray, "*nodes"],
    settings: FlowSettings,
    clean: CleanSettings,
    *,
    turned: bool,
) -> tuple[Float[np.ndarray, "d *nodes"], Bool[np.ndarray, "*nodes"]]:
    """Vectors and whether they are believed; images that are long in y are laid on their side."""
    if not turned:
        found = flow(*images, settings, lattice=lattice, start=start.astype(np.float32),
                     selection=selection)  # fmt: skip
        return found.vectors, trusted(found, clean)
    swapped = _flow(
        (images[0].swapaxes(-1, -2), images[1].swapaxes(-1, -2)),
        Lattice(*(_swap(v) for v in (lattice.origin, lattice.stride, lattice.shape))),
        _swap_components(start),
        selection.swapaxes(-1, -2),
        replace(
            settings,
            patch=_swap(settings.patch),
            stride=_swap(settings.stride),
            search=_swap(settings.search),
        ),
        clean,
        turned=False,
    )  # fmt: skip
    return _swap_components(swapped[0]), swapped[1].swapaxes(-1, -2)


def _swap(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values[:-2], values[-1], values[-2])


def _swap_components(field: Float[np.ndarray, "d *nodes"]) -> Float[np.ndarray, "d *nodes2"]:
    """The same vectors with y and x exchanged, positions and components."""
    order = list(_swap(tuple(range(len(field)))))
    return np.ascontiguousarray(field[order].swapaxes(-1, -2))
