"""Unknown nodes of a map filled in from those around them.

Gaps are filled with the surface of least bending energy that passes through the known nodes
(the thin plate of Duchon 1977, doi 10.1007/BFb0086566, here as finite differences): it joins
them smoothly and continues an affine map exactly. Gaps that do not touch are independent, to
rounding.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse, spatial
from scipy.sparse import linalg

from warpbeam.kernels.maps.coordinate_map import CoordinateMap

Beyond = Literal["nan", "nearest", "smooth"]
Mask = Bool[np.ndarray, "*lattice"]
Section = Float[np.ndarray, "d *lattice"]
Stencil = list[tuple[tuple[int, ...], float]]

# A share of tension in the plate: decides where bending alone does not, as with one known node.
_TENSION = 1e-4
# Unknown nodes of one gap up to which the plate is factorised (seconds, below 1 GB). A larger gap
# is spanned by a membrane, which conjugate gradients solve in little memory, and some more steps
# bend it into the plate near what is known.
_PLATE_LIMIT = {2: 40_000, 3: 5_000}
_BENDING_STEPS = 100
_RELATIVE = 1e-4  # residual at which conjugate gradients stop


def fill_missing(
    m: CoordinateMap, *, outside: Beyond = "nan", empty: int | float = np.nan
) -> CoordinateMap:
    """A map whose gaps are filled.

    Args:
        m: a map or a batch; every map of a batch is filled by itself.
        outside: what becomes of unknown nodes outside the convex hull of the known ones: they
            stay unknown, get the offset of the nearest node, or continue the plate ("smooth":
            linear far away, so mind long reaches).
        empty: the offset in a map without any known node; 0 makes it the identity.

    Returns:
        A map in the dtype of `m`; known nodes keep their offsets.
    """
    u = m.u.copy()
    for index in np.ndindex(m.batch):
        one = m.section(*index)
        u[(slice(None), *index)] = _fill_section(one, outside, empty)
    return m.with_offsets(u)


def fill_nearest(m: CoordinateMap) -> CoordinateMap:
    """Every unknown node gets the offset of the nearest known one; 0 where there is none."""
    u = m.u.copy()
    for index in np.ndindex(m.batch):
        one = m.section(*index)
        known = one.known
        u[(slice(None), *index)] = _nearest(one.u, known, m.stride) if known.any() else 0
    return m.with_offsets(u)


def _fill_section(m: CoordinateMap, outside: Beyond, empty: int | float) -> Section:
    known = m.known
    if known.all():
        return m.u
    if not known.any():
        return np.full_like(m.u, empty)
    u = np.where(known, m.u, np.nan).astype(np.float64)
    span = ~known if outside == "smooth" else ~known & _inside_hull(known)
    small, large = _split(span)
    _bridge(u, small, m.stride, factorise=True)
    for gap in large:
        _bridge(u, gap, m.stride, factorise=False)
    if outside == "nearest":
        u = _nearest(u, np.all(np.isfinite(u), axis=0), m.stride)
    return u.astype(m.u.dtype)


def _nearest(u: Section, known: Mask, stride: tuple[int | float, ...]) -> Section:
    index = ndimage.distance_transform_edt(
        ~known, sampling=stride, return_distances=False, return_indices=True
    )
    return u[(slice(None), *index)]


def _inside_hull(known: Mask) -> Mask:
    """The nodes in the convex hull of the known ones; none where those are on a line or plane."""
    ends = known & ~(np.roll(known, 1, axis=-1) & np.roll(known, -1, axis=-1))
    ends[..., [0, -1]] |= known[..., [0, -1]]
    points = np.argwhere(ends)
    try:
        hull = spatial.ConvexHull(points)
    except (spatial.QhullError, ValueError):
        return np.zeros_like(known)
    index = np.indices(known.shape)
    inside = np.ones(known.shape, bool)
    for *normal, offset in np.unique(hull.equations, axis=0):
        inside &= np.tensordot(np.array(normal), index, axes=1) + offset <= 1e-9
    return inside


def _split(span: Mask) -> tuple[Mask, list[Mask]]:
    """All gaps that are small enough to be factorised, and the others one by one.

    Gaps whose equations share no node are apart.
    """
    full = np.ones((3,) * span.ndim, bool)
    groups, _ = ndimage.label(ndimage.binary_dilation(span, full), full)
    groups[~span] = 0
    large = np.bincount(groups.ravel()) > _PLATE_LIMIT[span.ndim]
    large[0] = False
    return span & ~large[groups], [groups == label for label in np.flatnonzero(large)]


def _bridge(u: Section, gap: Mask, stride: tuple[int | float, ...], *, factorise: bool) -> None:
    """Fills a gap in place; nodes that nothing known pins down stay unknown."""
    known = np.all(np.isfinite(u), axis=0)
    pieces, _ = ndimage.label(gap | known)
    pinned = np.isin(pieces, np.unique(pieces[known])) & (gap | known)
    number = np.full(gap.shape, -1)
    wanted = gap & pinned
    number[wanted] = np.arange(wanted.sum())
    if not wanted.any():
        return
    values = np.nan_to_num(u)
    plate = _normal_equations(number, pinned, values, _plate(stride))
    if factorise:
        options = {"SymmetricMode": True}
        factor = linalg.splu(plate[0], permc_spec="MMD_AT_PLUS_A", options=options)
        u[:, wanted] = factor.solve(plate[1]).T
        return
    membrane = _normal_equations(number, pinned, values, _tension(stride, 1.0))
    flat = _conjugate_gradients(*membrane, np.zeros_like(membrane[1]))
    u[:, wanted] = _conjugate_gradients(*plate, flat, _BENDING_STEPS).T


def _normal_equations(
    number: Int[np.ndarray, "*lattice"], usable: Mask, values: Section, stencils: list[Stencil]
) -> tuple[sparse.csc_matrix, Float[np.ndarray, "n d"]]:
    """Matrix and right sides whose solution has the least energy, given the other values."""
    system = _equations(number, usable, stencils)
    given = number.ravel() < 0
    left = system[:, np.flatnonzero(~given)]
    right = -(system[:, np.flatnonzero(given)] @ values.reshape(len(values), -1)[:, given].T)
    return (left.T @ left).tocsc(), left.T @ right


def _conjugate_gradients(
    matrix: sparse.csc_matrix,
    right: Float[np.ndarray, "n d"],
    start: Float[np.ndarray, "n d"],
    steps: int | None = None,
) -> Float[np.ndarray, "n d"]:
    inverse = sparse.diags(1 / matrix.diagonal())
    columns = [
        linalg.cg(matrix, b, x0=x, rtol=_RELATIVE, maxiter=steps, M=inverse)[0]
        for b, x in zip(right.T, start.T, strict=True)
    ]
    return np.stack(columns, axis=1)


def _step(stride: tuple[int | float, ...]) -> list[float]:
    """The stride in units of its mean, so that the tension means the same on any lattice."""
    mean = float(np.exp(np.mean(np.log(stride))))
    return [s / mean for s in stride]


def _tension(stride: tuple[int | float, ...], weight: float) -> list[Stencil]:
    """First differences, whose squares sum to the energy of a membrane."""
    zero = (0,) * len(stride)
    return [
        [(zero, -weight / s), (_offset(len(stride), k), weight / s)]
        for k, s in enumerate(_step(stride))
    ]


def _plate(stride: tuple[int | float, ...]) -> list[Stencil]:
    """Second differences, whose squares sum to the bending energy, and a little tension."""
    ndim, step = len(stride), _step(stride)
    zero = (0,) * ndim
    stencils = _tension(stride, _TENSION)
    for k in range(ndim):
        second = 1 / step[k] ** 2
        one, two = _offset(ndim, k), _offset(ndim, k, k)
        stencils.append([(zero, second), (one, -2 * second), (two, second)])
    for k, j in itertools.combinations(range(ndim), 2):
        mixed = math.sqrt(2) / (step[k] * step[j])
        first, second_axis, both = _offset(ndim, k), _offset(ndim, j), _offset(ndim, k, j)
        stencils.append([(zero, mixed), (first, -mixed), (second_axis, -mixed), (both, mixed)])
    return stencils


def _offset(ndim: int, *axes: int) -> tuple[int, ...]:
    return tuple(axes.count(k) for k in range(ndim))


def _equations(
    number: Int[np.ndarray, "*lattice"], usable: Mask, stencils: list[Stencil]
) -> sparse.csr_matrix:
    """One row per place of a stencil that touches an unknown node and only usable ones."""
    flat = np.arange(number.size).reshape(number.shape)
    blocks = []
    for stencil in stencils:
        reach = np.max([offset for offset, _ in stencil], axis=0)
        if (np.array(number.shape) <= reach).any():
            continue
        windows = [
            tuple(slice(o, n - r + o) for o, n, r in zip(offset, number.shape, reach, strict=True))
            for offset, _ in stencil
        ]
        wanted = np.any([number[w] >= 0 for w in windows], axis=0)
        wanted &= np.all([usable[w] for w in windows], axis=0)
        nodes = np.stack([flat[w][wanted] for w in windows])
        rows = np.broadcast_to(np.arange(nodes.shape[1]), nodes.shape)
        weights = np.broadcast_to(np.array([[w] for _, w in stencil]), nodes.shape)
        entries = (weights.ravel(), (rows.ravel(), nodes.ravel()))
        blocks.append(sparse.csr_matrix(entries, shape=(nodes.shape[1], number.size)))
    return sparse.vstack(blocks).tocsr()
