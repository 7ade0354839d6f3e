"""One map after another."""

from __future__ import annotations

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.interpolate import Outside, offsets_at


def compose(
    first: CoordinateMap, second: CoordinateMap, *, outside: Outside = "nan"
) -> CoordinateMap:
    """The map `p -> second(first(p))`, from the frame of `first` to that `second` leads to.

    Origins and strides may be any.

    Args:
        first: from A to B.
        second: from B to C. Batches must broadcast against each other (NumPy's rule).
        outside: where `first` leads beyond the nodes of `second`, the result is not known
            ("nan"), or the offset of the nearest border point is taken ("nearest").

    Returns:
        A map on the lattice of `first`, in its dtype. NaN where `first` is not known, or where it
        leads next to a node of `second` that is not known.

    Raises:
        ValueError: one map is 2-D and the other 3-D, or the batches do not broadcast.
    """
    if first.ndim != second.ndim:
        raise ValueError(f"a {first.ndim}-D map cannot be followed by a {second.ndim}-D one")
    batch = np.broadcast_shapes(first.batch, second.batch)
    a = _broadcast(first, batch)
    b = _broadcast(second, batch)
    total = np.empty_like(a.u)
    for index in np.ndindex(batch):
        one = a.section(*index)
        total[(slice(None), *index)] = one.u + offsets_at(b.section(*index), one.absolute, outside)
    return first.with_offsets(total)


def then_matrix(m: CoordinateMap, matrix: affine.Matrix) -> CoordinateMap:
    """The map `p -> matrix m(p)` on the nodes of `m`, which is no batch; float64."""
    nodes = m.lattice.nodes()
    reached = affine.apply(matrix, m.absolute.reshape(m.ndim, -1).T)
    return on_lattice(reached.T.reshape(nodes.shape) - nodes, m.lattice)


def _broadcast(m: CoordinateMap, batch: tuple[int, ...]) -> CoordinateMap:
    missing = len(batch) - len(m.batch)
    u = m.u.reshape(m.ndim, *[1] * missing, *m.u.shape[1:])
    return m.with_offsets(np.broadcast_to(u, (m.ndim, *batch, *m.lattice.shape)))
