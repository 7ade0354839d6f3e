"""Preconditioned conjugate gradients whose tolerance is an error of the solution.

Sums are NumPy's, not BLAS's: the same bits for any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, " nk"]


def conjugate_gradients(
    matrix: Any, right: Vector, precondition: Callable[..., Any], *, tolerance: float, most: int
) -> tuple[Vector, int]:
    """Solves `matrix x = right`; returns `x` and the number of steps, at `most`.

    Ends where the preconditioned residual, which estimates the error of `x`, has a root mean
    square of `tolerance`.

    Args:
        matrix: symmetric positive definite; anything that multiplies vectors with `@`.
        precondition: takes a residual to an approximate error; symmetric positive definite.
    """
    x, left = np.zeros_like(right), right.copy()
    direction, before = np.zeros_like(right), 1.0
    for step in range(most):
        better = precondition(left)
        if float((better**2).sum()) <= tolerance**2 * len(right):
            return x, step
        now = float((left * better).sum())
        direction *= now / before if step else 0.0
        direction += better
        before = now
        image = matrix @ direction
        length = now / float((direction * image).sum())
        x += length * direction
        left -= length * image
    return x, most
