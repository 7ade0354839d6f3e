"""A geometric multigrid for meshes near rest, to precondition conjugate gradients.

Every level is the same material on a lattice with twice the spacing; interpolation is linear,
its transpose takes residuals down, and data weights go down as sums. The smoother is Chebyshev's
polynomial of the diagonally scaled matrix (Adams et al. 2003, doi 10.1016/S0021-9991(03)00194-3);
a cycle is symmetric. What is left of a few thousand unknowns is factorised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float
from scipy import sparse

from warpbeam.kernels.linear.factorised import factorised
from warpbeam.kernels.mesh.bands import Bands
from warpbeam.kernels.mesh.lattice import Form, add_product, assembled

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]

_COARSEST_NODES = 3000  # left to a factorisation
_DEGREE = 3  # of the smoother
_RANGE = 6.0  # the smoother damps eigenvalues down to the largest over this
_DAMPING = 1e-9  # of the mean diagonal: what no target holds stays where it is
_PROBE = 7  # nodes per axis of the lattice on which the largest eigenvalue is found
_SAFETY = 1.1


@dataclass(frozen=True)
class _Level:
    add_product: Callable[[Field, Field], None]
    weight: Grid
    inverse_diagonal: Field
    largest: float

    def product(self, x: Field) -> Field:
        out = self.weight * x
        self.add_product(x, out)
        return out

    def smooth(self, right: Field, x: Field | None) -> Field:
        """A few steps of Chebyshev's iteration from `x`, or from nothing."""
        high, low = self.largest, self.largest / _RANGE
        middle, half = (high + low) / 2, (high - low) / 2
        rho = half / middle
        left = right if x is None else right - self.product(x)
        step = self.inverse_diagonal * left
        step /= middle
        x = step.copy() if x is None else x + step
        for _ in range(_DEGREE - 1):
            left = right - self.product(x)
            left *= self.inverse_diagonal
            following = 1 / (2 * middle / half - rho)
            step *= following * rho
            step += (2 * following / half) * left
            x += step
            rho = following
        return x


class LatticeMultigrid:
    """One symmetric V-cycle as an approximate inverse of `forms + weight`.

    `add_product(x, out)` adds the product with the forms alone to `out`.

    Args:
        forms: the energy without data.
        weight: of the target of each node, at least 0 and somewhere above.
        components: that the forms name; where it is one, residuals may have any number, on all of
            which the forms act alike.
    """

    def __init__(self, forms: Sequence[Form], weight: Grid, components: int) -> None:
        self._levels: list[_Level] = []
        forms = tuple(forms)
        while weight.size > _COARSEST_NODES and max(weight.shape) > 3:
            diagonal = _diagonal(forms, weight.shape, components) + weight
            diagonal[diagonal == 0] = 1.0
            largest = _SAFETY * _largest_eigenvalue(forms, components)
            product = _product(forms, weight.shape, components)
            self._levels.append(_Level(product, weight, 1 / diagonal, largest))
            halved = tuple(axis for axis, n in enumerate(weight.shape) if n > 2)
            forms = tuple(form.coarser(halved) for form in forms)
            for axis in halved:
                weight = _restrict(weight, axis)
        finest = self._levels[0].add_product if self._levels else None
        self.add_product = finest or _product(forms, weight.shape, components)
        matrix = assembled(forms, weight.shape, components)
        data = np.tile(weight.ravel(), components)
        damping = _DAMPING * float((matrix.diagonal() + data).mean())
        matrix = matrix + sparse.diags_array(data + damping)
        self._unknowns, self._coarsest = len(data), factorised(matrix)

    def __call__(self, residual: Field) -> Field:
        return self._cycle(residual, 0)

    def _cycle(self, residual: Field, depth: int) -> Field:
        if depth == len(self._levels):
            columns = residual.reshape(-1, self._unknowns).T
            return self._coarsest(columns).T.reshape(residual.shape)
        level = self._levels[depth]
        x = level.smooth(residual, None)
        left = residual - level.product(x)
        shape = level.weight.shape
        halved = [axis for axis, n in enumerate(shape) if n > 2]
        for axis in halved:
            left = _restrict(left, axis + 1)
        better = self._cycle(left, depth + 1)
        for axis in reversed(halved):
            better = _prolong(better, axis + 1, shape[axis])
        x += better
        return level.smooth(residual, x)


def _restrict(fine: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """The transpose of `_prolong`: sums of nodes, and of halves of those in between."""
    fine = np.moveaxis(fine, axis, 0)
    even, odd = fine[0::2], fine[1::2]
    coarse = np.zeros((len(fine) // 2 + 1, *fine.shape[1:]))
    coarse[: len(even)] += even
    coarse[: len(odd)] += 0.5 * odd
    coarse[1 : len(odd) + 1] += 0.5 * odd
    return np.moveaxis(coarse, 0, axis)


def _prolong(coarse: Float[np.ndarray, "..."], axis: int, count: int) -> Float[np.ndarray, "..."]:
    """Linear interpolation; coarse node i lies on fine node 2 i, the last perhaps outside."""
    coarse = np.moveaxis(coarse, axis, 0)
    fine = np.empty((count, *coarse.shape[1:]))
    fine[0::2] = coarse[: (count + 1) // 2]
    fine[1::2] = 0.5 * (coarse[: count // 2] + coarse[1 : count // 2 + 1])
    return np.moveaxis(fine, 0, axis)


def _product(
    forms: tuple[Form, ...], shape: tuple[int, ...], components: int
) -> Callable[[Field, Field], None]:
    if components == 1:
        return Bands(forms, shape).add_product
    return partial(add_product, forms)


def _diagonal(forms: Sequence[Form], shape: tuple[int, ...], components: int) -> Field:
    total = np.zeros((components, *shape))
    for form in forms:
        places = form.places(shape)
        for component, offset, coefficient in form.entries:
            where = tuple(slice(o, o + n) for o, n in zip(offset, places, strict=True))
            total[component][where] += form.stiffness * coefficient**2
    return total


@lru_cache(maxsize=256)
def _largest_eigenvalue(forms: tuple[Form, ...], components: int) -> float:
    """Of the diagonally scaled matrix without data, on a small lattice, where edges count most."""
    ndim = len(forms[0].entries[0][1])
    shape = (_PROBE if ndim == 2 else 4,) * ndim
    matrix = assembled(forms, shape, components).toarray()
    scale = 1 / np.sqrt(np.diagonal(matrix))
    return float(np.linalg.eigvalsh(matrix * scale * scale[:, None])[-1])
