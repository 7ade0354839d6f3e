"""Where a map folds or stretches too much."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from warpbeam.kernels.maps.coordinate_map import CoordinateMap

Float64 = Float[np.ndarray, "..."]


def jacobian(m: CoordinateMap) -> Float64:
    """The Jacobian determinant dM/dp of each cell of the lattice, at its worst corner.

    1 where nothing changes volume, negative where the map turns space inside out (a fold), NaN in
    a cell with a corner that is not known. The determinant of a bilinear cell is smallest at a
    corner, so in 2-D a positive value means that the cell does not fold.

    Returns:
        `[*batch, cells…]`, one less than there are nodes on each lattice axis, float64.
    """
    reached = m.absolute
    cells = tuple(n - 1 for n in m.lattice.shape)
    worst = np.full((*m.batch, *cells), np.inf)
    # the derivative along an axis lives on links; a corner of a cell takes the link it ends
    links = [np.diff(reached, axis=k - m.ndim) / m.stride[k] for k in range(m.ndim)]
    for corner in itertools.product((0, 1), repeat=m.ndim):
        columns = [_at_corner(links[k], k, corner, cells) for k in range(m.ndim)]
        worst = np.minimum(worst, _determinant(columns))
    return worst


def folded(m: CoordinateMap) -> Bool[np.ndarray, "..."]:
    """The cells that fold, `[*batch, cells…]`; False where not known."""
    return jacobian(m) <= 0


def irregular(
    m: CoordinateMap, shortest: int | float, longest: int | float | None = None, *, dilate: int = 1
) -> Bool[np.ndarray, "..."]:
    """Nodes at folds, and those whose links are too short or too long.

    A link that leaves [shortest, longest] marks the node where it starts, and a cell that folds
    its first node; one dilation adds the other ends.

    Args:
        m: a map or a batch.
        shortest: the least distance of neighbouring nodes in B, as a share of the stride.
        longest: the greatest; `2 - shortest` by default.
        dilate: how many nodes to grow the mask by, diagonals included.

    Returns:
        `[*batch, (z,) y, x]`. Links with an unknown end count as regular.
    """
    longest = 2 - shortest if longest is None else longest
    reached = m.absolute
    bad = np.zeros(m.u.shape[1:], bool)
    starts = tuple(slice(0, n - 1) for n in m.lattice.shape)
    batch = (slice(None),) * len(m.batch)
    bad[batch + starts] = folded(m)
    for axis, stride in enumerate(m.stride):
        length = np.linalg.norm(np.diff(reached, axis=axis - m.ndim), axis=0) / stride
        link = tuple(starts[k] if k == axis else slice(None) for k in range(m.ndim))
        bad[batch + link] |= (length < shortest) | (length > longest)
    if dilate > 0:
        around = np.ones((*[1] * len(m.batch), *[3] * m.ndim), bool)
        bad = ndimage.binary_dilation(bad, around, iterations=dilate)
    return bad


def mask_irregular(
    m: CoordinateMap, shortest: int | float, longest: int | float | None = None, *, dilate: int = 1
) -> CoordinateMap:
    """The map with its irregular nodes made unknown (see `irregular`)."""
    bad = irregular(m, shortest, longest, dilate=dilate)
    return m.with_offsets(np.where(bad, np.asarray(np.nan, m.u.dtype), m.u))


def _at_corner(link: Float64, axis: int, corner: Sequence[int], cells: tuple[int, ...]) -> Float64:
    take = [
        slice(None) if k == axis else slice(corner[k], corner[k] + n) for k, n in enumerate(cells)
    ]
    return link[(..., *take)]


def _determinant(columns: list[Float64]) -> Float64:
    if len(columns) == 2:
        (a, c), (b, d) = columns
        return a * d - b * c
    first, second, third = columns
    return (first * np.cross(second, third, axis=0)).sum(axis=0)
