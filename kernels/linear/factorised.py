"""Direct solves with sparse symmetric matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

Solve = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def factorised(matrix: Any) -> Solve:
    """Solves with a symmetric positive definite matrix; right sides are columns.

    Pivots on the diagonal fill in least.
    """
    factor = linalg.splu(
        sparse.csc_array(matrix),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solve: Solve = factor.solve
    return solve
