"""Bending energy of a mesh: the integral of its squared second derivatives.

`E = 1/2 sum_ab integral (d_a d_b u)^2` of each component (the thin plate: Duchon 1977, doi
10.1007/BFb0086566). Shifts, rotations, scaling and shear are free, so that, unlike springs
towards their rest length, it does not shrink a map: it only smooths. The edge is free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from warpbeam.kernels.mesh.lattice import Form


def bending_forms(stride: Sequence[float], half_px: float, components: int = 1) -> tuple[Form, ...]:
    """The second differences of every component, with their stiffness.

    Against data springs of weight 1 on every node, a wave of length `half_px` keeps half of its
    amplitude, whatever the stride: the response is `1 / (1 + (half_px / length)^4)`.

    Args:
        stride: px between nodes on each axis.
        half_px: that wavelength; 0 for no bending energy.
        components: of the field; all bend alike.
    """
    if half_px == 0:
        return ()
    ndim, reach = len(stride), half_px / (2 * math.pi)
    forms = []
    for a, b in itertools.combinations_with_replacement(range(ndim), 2):
        steps = _second(a, ndim) if a == b else _mixed(a, b, ndim)
        stiffness = (1 if a == b else 2) * (reach**2 / (stride[a] * stride[b])) ** 2
        for component in range(components):
            entries = tuple((component, offset, coefficient) for offset, coefficient in steps)
            forms.append(Form(entries, stiffness, tuple(sorted({a, b})), order=2))
    return tuple(forms)


def _unit(axis: int, ndim: int, steps: int = 1) -> tuple[int, ...]:
    return tuple(steps if i == axis else 0 for i in range(ndim))


def _second(axis: int, ndim: int) -> list[tuple[tuple[int, ...], float]]:
    return [(_unit(axis, ndim, step), weight) for step, weight in ((0, 1.0), (1, -2.0), (2, 1.0))]


def _mixed(a: int, b: int, ndim: int) -> list[tuple[tuple[int, ...], float]]:
    corners = itertools.product((0, 1), repeat=2)
    return [
        (tuple(i * (n == a) + j * (n == b) for n in range(ndim)), 1.0 if i == j else -1.0)
        for i, j in corners
    ]
