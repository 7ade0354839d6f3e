"""Sums of squares of small linear forms that repeat over a regular lattice of nodes.

Springs at rest and bending are such sums: `E = sum k/2 s^2`, with `s` one linear form of a few
neighbouring nodes. What is here applies, or assembles, the matrix of `E` from the forms alone.
Fields are `[component, (z,) y, x]`. Work goes by strips of rows that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

Field = Float[np.ndarray, "c *grid"]
Offset = tuple[int, ...]
Slices = tuple[slice, ...]

_STRIP_NODES = 1 << 14  # nodes whose temporaries stay in the second-level cache


@dataclass(frozen=True)
class Form:
    """One linear form: the sum of `coefficient * x[component]` at the node and its offsets.

    Attributes:
        entries: (component, offset >= 0 on each axis, coefficient).
        stiffness: `k` of the form's energy `k/2 s^2`.
        axes: the axes along which it takes differences.
        order: of the differences: 1 for springs, 2 for bending.
    """

    entries: tuple[tuple[int, Offset, float], ...]
    stiffness: float
    axes: tuple[int, ...]
    order: int

    def places(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many times the form fits on each axis of a lattice."""
        reach = np.max([offset for _, offset, _ in self.entries], axis=0)
        return tuple(max(0, n - int(r)) for n, r in zip(shape, reach, strict=True))

    def coarser(self, halved: Sequence[int]) -> Form:
        """The same energy on a lattice with twice the spacing on the axes `halved`."""
        share = len(set(self.axes) & set(halved)) / len(self.axes)
        factor = 2.0 ** len(halved) / 4.0 ** (self.order * share)
        return replace(self, stiffness=self.stiffness * factor)


def strips(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of strips along the first axis."""
    rows = max(1, _STRIP_NODES // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], rows):
        yield first, min(shape[0], first + rows)


def window(
    offset: Sequence[int], places: Sequence[int], rows: tuple[int, int] | None = None
) -> Slices:
    """Where the nodes at `offset` from the form's places lie; only `rows` of those places."""
    first, last = rows or (0, places[0])
    head = slice(offset[0] + first, offset[0] + min(last, places[0]))
    return head, *(slice(o, o + n) for o, n in zip(offset[1:], places[1:], strict=True))


def add_product(
    forms: Sequence[Form],
    x: Field,
    out: Field,
    exists: Sequence[Float[np.ndarray, "..."]] | None = None,
) -> None:
    """Adds the matrix of the forms times `x` to `out`.

    Args:
        exists: of each form, 1 or 0 for each of its places.
    """
    shape = x.shape[1:]
    places = [form.places(shape) for form in forms]
    for rows in strips(shape):
        for index, (form, count) in enumerate(zip(forms, places, strict=True)):
            if rows[0] >= count[0] or 0 in count:
                continue
            at = [(c, window(offset, count, rows)) for c, offset, _ in form.entries]
            value = _value(form, x, at)
            value *= form.stiffness
            if exists is not None:
                value *= exists[index][rows[0] : rows[1]]
            for (component, where), (_, _, coefficient) in zip(at, form.entries, strict=True):
                target = out[component][where]
                if coefficient == 1.0:
                    target += value
                elif coefficient == -1.0:
                    target -= value
                else:
                    target += coefficient * value


def _value(form: Form, x: Field, at: list[tuple[int, Slices]]) -> Float[np.ndarray, "*places"]:
    """The form at each place."""
    (component, where), coefficient = at[0], form.entries[0][2]
    value = coefficient * x[component][where]
    for (component, where), (_, _, coefficient) in zip(at[1:], form.entries[1:], strict=True):
        if coefficient == 1.0:
            value += x[component][where]
        elif coefficient == -1.0:
            value -= x[component][where]
        else:
            value += coefficient * x[component][where]
    return value


def existing(
    forms: Sequence[Form], active: Bool[np.ndarray, "*grid"]
) -> list[Float[np.ndarray, "..."]]:
    """Of each form and place: 1 where all its nodes are active, else 0."""
    result = []
    for form in forms:
        count = form.places(active.shape)
        whole = np.ones(count, bool)
        for _, offset, _ in form.entries:
            whole &= active[window(offset, count)]
        result.append(whole.astype(np.float64))
    return result


@lru_cache(maxsize=8)
def assembled(forms: tuple[Form, ...], shape: tuple[int, ...], components: int) -> Any:
    """The matrix of the forms as `csc_array`; unknowns in C order of `[component, *grid]`."""
    index = np.arange(math.prod(shape)).reshape(shape)
    total = sparse.csr_array((components * index.size, components * index.size))
    for form in forms:
        count = form.places(shape)
        size = math.prod(count)
        columns = [
            component * index.size + index[window(offset, count)].ravel()
            for component, offset, _ in form.entries
        ]
        values = [np.full(size, coefficient) for _, _, coefficient in form.entries]
        rows = np.tile(np.arange(size), len(columns))
        matrix = sparse.csr_array(
            (np.concatenate(values), (rows, np.concatenate(columns))),
            shape=(size, total.shape[1]),
        )
        total = total + form.stiffness * (matrix.T @ matrix)
    return sparse.csc_array(total)
