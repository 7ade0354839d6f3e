"""The brightness of each tile, from what it and its neighbours show of one place.

Gains and offsets of all tiles are solved for together, as with positions: a sparse robust least
squares in which a closed loop counts and an overlap that changed between exposures loses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import sparse
from scipy.sparse import linalg

_LEAST_PIXELS = 16
_ROUNDS = 12
_CUTOFF = 3.0  # a residual of this many scales has a quarter of the weight
_LEAST_SCALE = 1e-3  # of the brightness: no overlap is trusted to be better
_SETTLED = 5e-4  # of the brightness: the last change of gains and offsets


@dataclass(frozen=True)
class OverlapLevels:
    """Mean grey levels of the darker and the brighter half of an overlap, in tiles a and b.

    Attributes:
        a, b: `(2,)` darker half, brighter half, the same pixels in both tiles; NaN if unknown.
        pixels: how many pixels they stand for; 0 if too few were valid.
    """

    a: Float[np.ndarray, " 2"]
    b: Float[np.ndarray, " 2"]
    pixels: int


@dataclass(frozen=True)
class Gains:
    """`corrected = gain * image + offset`, one row per tile.

    Attributes:
        gain, offset: `(n,)`.
        weight: `(m,)` of each overlap, 0 (disagrees with all others, or unknown) to 1.
    """

    gain: Float[np.ndarray, " n"]
    offset: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " m"]


def overlap_levels(
    a: Num[np.ndarray, "*overlap"],
    b: Num[np.ndarray, "*overlap"],
    mask: Bool[np.ndarray, "*overlap"] | None = None,
) -> OverlapLevels:
    """Levels of the common area of two tiles, resampled to one grid.

    Pixels are split at the median of `a + b`, so that noise pulls both tiles alike, and those
    whose `a - b` lies far from the other's in their half (moved, saturated) are left out.

    Args:
        a, b: what either tile shows; NaN is not known.
        mask: True where both tiles count.
    """
    valid = np.isfinite(a) & np.isfinite(b)
    if mask is not None:
        valid &= mask
    x, y = a[valid].astype(np.float64), b[valid].astype(np.float64)
    if len(x) < _LEAST_PIXELS:
        return OverlapLevels(np.full(2, np.nan), np.full(2, np.nan), 0)
    dark = _darker(x + y)
    means = [_trimmed_means(x[half], y[half]) for half in (dark, ~dark)]
    return OverlapLevels(np.array([m[0] for m in means]), np.array([m[1] for m in means]), len(x))


def _darker(grey: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The darker half of some pixels; of equal ones the first, on any machine."""
    half = (len(grey) + 1) // 2
    middle = np.partition(grey, half - 1)[half - 1]
    dark = grey < middle
    equal = np.flatnonzero(grey == middle)
    dark[equal[: half - np.count_nonzero(dark)]] = True
    return dark


def solve_gains(
    pairs: Int[np.ndarray, "m 2"],
    levels: Float[np.ndarray, "m 2 2"],
    pixels: Float[np.ndarray, " m"],
    *,
    count: int,
    gain_sigma: float,
    offset_sigma: float = 0.0,
) -> Gains:
    """Gains, and offsets if wanted, that make neighbours agree.

    Tiles without a usable overlap keep gain 1 and offset 0; the mean log gain and the mean
    offset of each connected component are 0. The order of tiles and overlaps has no influence
    beyond rounding.

    Args:
        pairs: tiles a and b of each overlap.
        levels: `[overlap, a or b, darker or brighter half]`, from `overlap_levels`; an overlap
            with a NaN is left out.
        pixels: the weight of each overlap, such as its number of valid pixels.
        count: number of tiles.
        gain_sigma: by how much gains differ, standard deviation (0.05: 5 %).
        offset_sigma: by how much offsets differ, grey levels; 0 solves for gains alone.

    Raises:
        ValueError: a pair names a tile that does not exist, or a sigma is negative.
    """
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < count):
        raise ValueError(f"pairs name tiles {pairs.min()} to {pairs.max()}, there are {count}")
    if gain_sigma <= 0 or offset_sigma < 0:
        raise ValueError(f"sigmas must be positive, got gain {gain_sigma}, offset {offset_sigma}")
    known = np.isfinite(levels).all(axis=(1, 2)) & (pixels > 0)
    weight = np.zeros(len(pairs))
    if not known.any():
        return Gains(np.ones(count), np.zeros(count), weight)
    share = pixels[known] / np.median(pixels[known])
    unit = float(np.median(np.abs(levels[known]))) or 1.0
    problem = _Problem(pairs[known], levels[known] / unit, share, count, offset_sigma > 0)
    log_gain, offset, weight[known] = problem.solve(gain_sigma, offset_sigma / unit)
    return Gains(np.exp(log_gain), offset * unit, weight)


def _trimmed_means(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Means of both without the pairs whose difference is over 4 median deviations off."""
    apart = np.abs(x - y - np.median(x - y))
    kept = apart <= 4 * 1.4826 * np.median(apart)
    return float(x[kept].mean()), float(y[kept].mean())


@dataclass(frozen=True)
class _Problem:
    """Levels in units of the typical level; `share`: of the typical number of pixels."""

    pairs: Int[np.ndarray, "m 2"]
    levels: Float[np.ndarray, "m 2 2"]
    share: Float[np.ndarray, " m"]
    count: int
    offsets: bool

    def solve(
        self, gain_sigma: float, offset_sigma: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log gains, offsets, and weights of the overlaps."""
        log_gain, offset = np.zeros(self.count), np.zeros(self.count)
        weight = np.ones(len(self.pairs))
        prior = (
            np.repeat([gain_sigma, offset_sigma], self.count)[: self.count * self._terms] ** -2.0
        )
        scale = gain_sigma
        for _ in range(_ROUNDS):
            design, apart = self._linear(log_gain, offset)
            size = np.sqrt((apart.reshape(-1, 2) ** 2).mean(axis=1) * self.share)
            noise = max(_LEAST_SCALE, 1.4826 * float(np.median(size)))
            before, scale = scale, max(noise, scale / 3)
            weight = (1 + (size / (_CUTOFF * scale)) ** 2) ** -2.0
            rows = np.repeat(weight * self.share, 2) / scale**2
            state = np.concatenate([log_gain, offset])[: len(prior)]
            normal = design.T @ sparse.diags_array(rows) @ design + sparse.diags_array(prior)
            step = linalg.spsolve(
                sparse.csc_array(normal), -(design.T @ (rows * apart)) - prior * state
            )
            log_gain = log_gain + step[: self.count]
            offset = offset + step[self.count :] if self.offsets else offset
            if before < 1.1 * scale and np.abs(step).max() < _SETTLED:
                break
        return log_gain, offset, weight

    @property
    def _terms(self) -> int:
        return 2 if self.offsets else 1

    def _linear(
        self, log_gain: np.ndarray, offset: np.ndarray
    ) -> tuple[sparse.csr_array, np.ndarray]:
        """How the differences of the levels change with the unknowns, and the differences.

        The mean of both levels stands for either, so that making everything darker gains nothing.
        """
        scaled = np.exp(log_gain[self.pairs])[:, :, None] * self.levels
        corrected = scaled + offset[self.pairs][:, :, None]
        middle = scaled.mean(axis=1).ravel()
        row = np.arange(2 * len(self.pairs))
        a, b = np.repeat(self.pairs, 2, axis=0).T
        values, columns = [middle, -middle], [a, b]
        if self.offsets:
            values += [np.ones(len(row)), -np.ones(len(row))]
            columns += [a + self.count, b + self.count]
        rows = np.tile(row, len(values))
        design = sparse.csr_array(
            (np.concatenate(values), (rows, np.concatenate(columns))),
            shape=(len(row), self._terms * self.count),
        )
        return design, (corrected[:, 0] - corrected[:, 1]).ravel()
