"""The flat field and dark level that many tiles share, from the tiles themselves.

As in BaSiC (Peng et al. 2017, doi 10.1038/ncomms14836) a tile is `level * flat + dark` plus its
own content, which is sparse (fluorescence) or averages out over tiles (textured tissue). Here
the flat field is the exponential of a polynomial. Each coefficient is judged by how much it
varies from tile to tile, and shrunk to nothing where it could be content: with few tiles only
a plain vignette is left, and no picture is printed into the tiles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from warpbeam.kernels.shading.correction import Shading

_CELLS = 64  # of a reduced tile on its longer side
_KEEP = 2048  # reduced tiles in memory: 32 MB
_DEGREES = ((2, 0), (8, 2), (24, 4))  # fewer tiles than this: polynomials of this degree
_TOP_DEGREE = 6
_SHRINK = 5.0  # a squared coefficient must be over this many times its variance,
_SHRINK_MORE = 2.5  # and this much more per degree above 2, of which there are many; simulated
_ROUNDS = 12
_BIWEIGHT = 4.685  # 95 % efficient for a normal distribution


class ShadingSamples:
    """Small pictures of tiles of one size, from which their common shading is estimated.

    Memory does not grow with the number of tiles: a fixed number of them is kept, chosen by a
    hash of their keys. What was kept, and thus the estimate to the last bit, does not depend on
    the order of `update` and `merge`, and a tile that comes twice counts once.
    """

    def __init__(self, shape: tuple[int, int], *, keep: int = _KEEP) -> None:
        """`shape`: of a tile, `(y, x)`; `keep`: the most tiles held in memory."""
        if min(shape) < 1 or keep < 1:
            raise ValueError(f"a tile and the samples need a size, got {shape} and {keep}")
        self.shape, self.keep = shape, keep
        self._kept: dict[tuple[bytes, str], Float[np.ndarray, "cy cx"]] = {}

    def update(self, tile: Num[np.ndarray, "y x"], key: str) -> None:
        """Takes one tile, named by `key`; NaN pixels are not known.

        Raises:
            ValueError: a tile of another shape.
        """
        if tile.shape != self.shape:
            raise ValueError(f"a tile is {tile.shape}, the ones before {self.shape}")
        name = (hashlib.blake2b(key.encode(), digest_size=8).digest(), key)
        if len(self._kept) < self.keep or name < max(self._kept):
            self._kept[name] = _reduced(tile)
            self._drop()

    def merge(self, other: ShadingSamples) -> None:
        """Takes over what another one has seen."""
        if (other.shape, other.keep) != (self.shape, self.keep):
            raise ValueError(
                f"samples of {self.shape} keeping {self.keep} cannot take those of {other.shape} "
                f"keeping {other.keep}"
            )
        self._kept.update(other._kept)
        self._drop()

    def estimate(self, *, dark: float | None = 0.0) -> Shading:
        """The common shading; even where no more than one tile was seen.

        Args:
            dark: the dark level, if known. None estimates it too, which takes a vignette and
                tiles of different brightness; it is 0 where those do not show one.
        """
        tiles = [self._kept[name] for name in sorted(self._kept)]
        values = np.stack(tiles) if tiles else np.empty((0, 1, 1), np.float32)
        level = _dark_level(values) if dark is None else dark
        fit = _fit(values - level)
        flat = np.exp(_design(self.shape, fit.degree) @ fit.coefficients).reshape(self.shape)
        return Shading((flat / flat.mean()).astype(np.float32), float(level))

    def _drop(self) -> None:
        for name in sorted(self._kept)[self.keep :]:
            del self._kept[name]


@dataclass(frozen=True)
class _Fit:
    """Coefficients of the log flat field, the tiles used, their level, weights of their cells."""

    degree: int
    coefficients: Float[np.ndarray, " terms"]
    rows: Float[np.ndarray, "tiles cells"]
    level: Float[np.ndarray, " tiles"]
    weight: Float[np.ndarray, "tiles cells"]


def _reduced(tile: Num[np.ndarray, "y x"]) -> Float[np.ndarray, "cy cx"]:
    """Means over a coarse grid of cells; NaN where a cell has no known pixel."""
    ratio = min(1.0, _CELLS / max(tile.shape))
    size = tuple(max(1, round(n * ratio)) for n in reversed(tile.shape))
    known = np.isfinite(tile)
    values = np.where(known, tile, 0).astype(np.float32)
    mean = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    if known.all():
        return mean
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.where(share > 0, mean / np.maximum(share, 1e-6), np.float32(np.nan))


def _design(shape: tuple[int, int], degree: int) -> Float[np.ndarray, "pixels terms"]:
    """Products of Legendre polynomials in y and x up to a total degree, the constant first."""
    along = [
        np.polynomial.legendre.legvander((np.arange(n) + 0.5) / n * 2 - 1, degree) for n in shape
    ]
    terms = [
        np.outer(along[0][:, i], along[1][:, total - i]).ravel()
        for total in range(degree + 1)
        for i in range(total + 1)
    ]
    return np.stack(terms, axis=1)


def _fit(values: Float[np.ndarray, "tiles cy cx"]) -> _Fit:
    """Robust least squares of `values / (level flat) - 1`, then the shrinkage."""
    shape = (values.shape[1], values.shape[2])
    rows = values.reshape(len(values), shape[0] * shape[1]).astype(np.float64)
    known = np.isfinite(rows).any(axis=1)
    level = np.nanmedian(rows[known], axis=1) if known.any() else np.empty(0)
    rows, level = rows[known][level > 0], level[level > 0]
    degree = next((d for count, d in _DEGREES if len(rows) < count), _TOP_DEGREE)
    design = _design(shape, degree)
    beta, weight, error = np.zeros(design.shape[1]), np.ones_like(rows), np.zeros_like(rows)
    if degree == 0:
        return _Fit(degree, beta, rows, level, weight)
    for _ in range(_ROUNDS):
        error = rows / (level[:, None] * np.exp(design @ beta)) - 1
        weight = _biweight(error)
        error = np.where(weight > 0, error, 0.0)
        normal = np.einsum("xp,x,xq->pq", design, weight.sum(axis=0), design)
        beta += np.linalg.solve(normal, np.einsum("xp,x->p", design, (weight * error).sum(axis=0)))
        beta[0] = 0.0
        level *= 1 + (weight * error).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-6)
    each = np.einsum("tx,xp->tp", weight * error, design) @ np.linalg.inv(normal)
    return _Fit(degree, _shrunk(beta, each, degree), rows, level, weight)


def _biweight(error: Float[np.ndarray, "tiles cells"]) -> Float[np.ndarray, "tiles cells"]:
    """Tukey's biweight at the scale of the median deviation; 0 where the error is NaN."""
    scale = max(1.4826 * float(np.nanmedian(np.abs(error))), 1e-6)
    inside = 1 - (np.nan_to_num(error, nan=np.inf) / (_BIWEIGHT * scale)) ** 2
    return np.clip(inside, 0.0, None) ** 2


def _shrunk(
    beta: Float[np.ndarray, " terms"], each: Float[np.ndarray, "tiles terms"], degree: int
) -> Float[np.ndarray, " terms"]:
    """The non-negative garrote (Breiman 1995, doi 10.1080/00401706.1995.10484371).

    `each`: by how much each tile moved each coefficient. Their variance is pooled over the
    terms of one degree, which makes it usable with a handful of tiles.
    """
    count = len(each)
    variance = (each**2).sum(axis=0) * count / (count - 1)
    total = np.repeat(np.arange(degree + 1), np.arange(degree + 1) + 1)
    pooled = (np.bincount(total, variance) / np.bincount(total))[total]
    least = (_SHRINK + _SHRINK_MORE * np.maximum(total - 2, 0)) * pooled
    return beta * np.clip(1 - least / np.maximum(beta**2, 1e-300), 0.0, None)


def _dark_level(values: Float[np.ndarray, "tiles cy cx"]) -> float:
    """The dark level, from the vignette's being fainter on dim tiles than on bright ones.

    With a dark level d that the fit takes for light, tile i is `scale_i flat' + offset_i`, and
    the offset falls with the tile's mean m as `d (mean(m) - m) / (mean(m) - d)`.
    """
    fit = _fit(values)
    flat = np.exp(_design((values.shape[1], values.shape[2]), fit.degree) @ fit.coefficients)
    flat /= flat.mean()
    if len(fit.rows) < 3 or flat.std() < 0.01:
        return 0.0
    rows, weight = np.where(fit.weight > 0, fit.rows, 0.0), fit.weight
    total = np.maximum(weight.sum(axis=1), 1e-6)
    mean_flat = (weight * flat).sum(axis=1) / total
    mean = (weight * rows).sum(axis=1) / total
    apart = flat - mean_flat[:, None]
    scale = (weight * apart * rows).sum(axis=1) / (weight * apart**2).sum(axis=1)
    offset = mean - scale * mean_flat
    means = scale + offset
    if np.ptp(means) < 0.05 * means.mean():
        return 0.0
    slope, _, _, highest = stats.theilslopes(offset, means)
    return float(slope * means.mean() / (slope - 1)) if highest < 0 else 0.0
