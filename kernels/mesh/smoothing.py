"""How stiff a mesh should be: the smoothing that predicts the data best.

Generalised cross-validation (Craven and Wahba 1979, doi 10.1007/BF01404567) of a bending sheet on
a regular lattice, in the cosine transform, where the sheet is diagonal up to its edge (Garcia
2010, doi 10.1016/j.csda.2009.09.020). Where errors of neighbours hang together, it smooths
less; the result then follows the data, and is no worse than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft

from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.gauss_newton import relax
from warpbeam.kernels.mesh.robust import relax_robust

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]
Nodes = Bool[np.ndarray, "*grid"]

_FIRST_STRIDES = 5.0  # wavelength of the first mesh, which finds outliers and fills gaps
_LEAST_STRIDES = 2.0  # the shortest wave of a lattice; below, the criterion sees only noise
_CANDIDATES = 60


@dataclass(frozen=True)
class Smoothed:
    """A mesh with its stiffness.

    Attributes:
        offsets: of the nodes, px; NaN on nodes that do not exist or hang on no target.
        kept: the share of its weight that was left of each target; 0: rejected or none.
        scale_px: standard deviation on one axis of the good targets about a moderate mesh, px.
        bending_px: the wavelength of which the mesh keeps half.
    """

    offsets: Field
    kept: Grid
    scale_px: float
    bending_px: float


def relax_smooth(
    target: Field,
    stride: tuple[float, ...],
    *,
    weight: Grid | None = None,
    active: Nodes | None = None,
) -> Smoothed:
    """A bending sheet through measured offsets, as stiff as they ask for.

    Args:
        target: offset of each node, px; NaN for not measured.
        stride: px between nodes, (z,) y, x.
        weight: of each target, about 1; None for 1 each.
        active: nodes that exist; None for all.

    Raises:
        ValueError: as `relax_robust`.
    """
    weights = None if weight is None else weight[None]
    first = Elasticity(stride, bending_px=_FIRST_STRIDES * max(stride))
    mesh = relax_robust(target[None], first, weight=weights, active=active)
    believed = mesh.kept[0] > 0
    filled = np.where(believed, np.where(believed, target, 0.0), np.nan_to_num(mesh.offsets))
    best = best_bending(filled, stride, believed)
    # outliers stay as the first mesh judged them: one that bends more would follow them
    share = mesh.kept[0] if weight is None else mesh.kept[0] * weight
    final = Elasticity(stride, bending_px=best)
    relaxed = relax(target, final, weight=share, active=active, start=mesh.offsets)
    return Smoothed(relaxed.offsets, mesh.kept[0], mesh.scale_px, best)


def best_bending(field: Field, stride: Sequence[float], known: Nodes) -> float:
    """The wavelength, px, of which a sheet should leave half.

    Args:
        field: offsets, px, filled where not `known`.
        stride: px between nodes.
        known: nodes that were measured; the others count as predicted.
    """
    shape = known.shape
    axes = tuple(range(1, field.ndim))
    waves = fft.dctn(_without_affine(field), axes=axes, norm="ortho")
    power = (waves**2).sum(axis=0)
    squared = np.zeros(shape)
    for axis, (n, step) in enumerate(zip(shape, stride, strict=True)):
        along = (2 - 2 * np.cos(np.pi * np.arange(n) / n)) / step**2
        squared += along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    count = int(known.sum())
    most = 4 * max(n * step for n, step in zip(shape, stride, strict=True))
    candidates = np.geomspace(_LEAST_STRIDES * max(stride), most, _CANDIDATES)
    scores = []
    for half in candidates:
        loss = 1 - 1 / (1 + (half / (2 * np.pi)) ** 4 * squared**2)
        scores.append(float((loss**2 * power).sum()) / count / float(loss.mean()) ** 2)
    return float(candidates[int(np.argmin(scores))])


def _without_affine(field: Field) -> Field:
    """The field less its best affine map, which bending leaves alone."""
    shape = field.shape[1:]
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    terms = np.stack([np.ones(shape), *axes]).reshape(len(shape) + 1, -1)
    flat = field.reshape(len(field), -1)
    best = np.linalg.lstsq(terms.T, flat.T, rcond=None)[0]
    return (flat - best.T @ terms).reshape(field.shape)
