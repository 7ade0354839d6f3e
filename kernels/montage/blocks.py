"""A link measured block by block, so that it tells rotation and scale besides shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from warpbeam.kernels.montage.refine import SIGMAS_PX, Refinement, refine

# Blocks keep this much of `moving` around them, so that small corrections lose nothing.
_MARGIN_PX = 4
# How far a block may lie from where its neighbour lies: 1 degree over 128 px is 2.2 px.
_MAX_CHANGE_PX = 2.5
_MAX_SIGMA_PX = 0.5

Vector = Float[np.ndarray, " d"]
Corner = Int[np.ndarray, " d"]
Masked = tuple[Float32[np.ndarray, "..."], Bool[np.ndarray, "..."]]


def refine_blocks(
    fixed: Masked, moving: Masked, whole: Refinement, *, count: int
) -> list[Refinement]:
    """Refines each of `count` blocks along the longest axis of the overlap.

    Works outwards from the middle of the content, each block starting from its neighbour's
    shift. Blocks that hold too little or run away are left out: the list may be empty.

    Args:
        fixed, moving: voxels (finite also where not valid) and mask.
        whole: the refinement of the whole overlap.
    """
    shift = np.rint(whole.shift).astype(int)
    low = np.maximum(0, shift)
    high = np.minimum(fixed[0].shape, np.add(moving[0].shape, shift))
    axis = int(np.argmax(high - low))
    edges = np.linspace(low[axis], high[axis], count + 1).astype(int)
    middle = (edges[:-1] + edges[1:]) / 2
    found: dict[int, Refinement] = {}
    sigmas = sorted({whole.sigma, SIGMAS_PX[-1]})
    for i in np.argsort(np.abs(middle - whole.centre[axis]), kind="stable"):
        near = min(found, key=lambda j: abs(j - i), default=None)
        start = whole.shift if near is None else found[near].shift
        first, last = low.copy(), high.copy()
        first[axis], last[axis] = edges[i], edges[i + 1]
        result = _refine_part(fixed, moving, start, sigmas, first, last)
        if result is not None and np.abs(result.shift - start).max() < _MAX_CHANGE_PX:
            found[int(i)] = result
    return [found[i] for i in sorted(found) if _is_known(found[i])]


def _refine_part(
    fixed: Masked,
    moving: Masked,
    start: Vector,
    sigmas: Sequence[float],
    first: Corner,
    last: Corner,
) -> Refinement | None:
    """The refinement of `fixed[first:last]`, in the coordinates of the whole patches."""
    back = np.maximum(0, first - np.rint(start).astype(int) - _MARGIN_PX)
    end = np.minimum(moving[0].shape, last - np.rint(start).astype(int) + _MARGIN_PX)
    if (end <= back).any():
        return None
    here, there = tuple(map(slice, first, last)), tuple(map(slice, back, end))
    result = refine(
        fixed[0][here],
        moving[0][there],
        fixed[1][here],
        moving[1][there],
        start=start - first + back,
        sigmas=sigmas,
        coarse_first=True,
    )
    if result is None:
        return None
    return replace(result, shift=result.shift + first - back, centre=result.centre + first)


def _is_known(result: Refinement) -> bool:
    return bool(np.linalg.eigvalsh(result.information)[-1] > _MAX_SIGMA_PX**-2)
