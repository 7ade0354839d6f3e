"""Which links are real: their scores against those of strips that cannot match.

The null distribution is measured on the mosaic itself, as in a permutation test: the strip
of one link is paired with that of another (or with its own, rolled half around), and the best
score over the whole search window is taken, just as for a link. The best of many correlated
values follows a Gumbel distribution (Gumbel 1958, "Statistics of Extremes"). Links are
accepted at a false discovery rate (Benjamini and Hochberg 1995,
doi 10.1111/j.2517-6161.1995.tb02031.x), so that no threshold is left to choose.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.montage.pair import Strip

Scores = Float[np.ndarray, " n"]

# The expected share of wrong links among the accepted ones: so few that a robust solve sheds
# them.
FALSE_DISCOVERY_RATE = 1e-3
# The distribution has two parameters: with fewer scores its tail is a guess, and that of the
# standard normal variable that a score is under independence is used.
_LEAST_NULLS = 16
_LEAST_COUNT, _MOST_COUNT = 64, 256
_NORMAL_LOCATION, _NORMAL_SCALE = 2.7, 0.37
# The part of the null scores that is trusted blindly, and how unlikely an outlier is.
_BULK = np.array([0.2, 0.8])
_OUTLIER = 1e-3
_EULER = 0.5772156649


@dataclass(frozen=True)
class NullPair:
    """Measure the fixed strip of one link against the moving strip of another.

    `roll` is by what share of its longest axis the moving strip is rolled first.
    """

    fixed_link: int
    moving_link: int
    roll: float


@dataclass(frozen=True, eq=False)
class Verdict:
    """`accepted[i]` for each link, the score from which links are accepted, the chance
    `p_value[i]` that strips which do not match score as high, and the null's parameters."""

    accepted: Bool[np.ndarray, " n"]
    threshold: float
    p_value: Scores
    location: float
    scale: float


def null_pairs(shapes: Sequence[tuple[int, ...]], *, seed: int) -> list[NullPair]:
    """Pairs of strips that do not match, one per link but at least 64 and at most 256.

    Args:
        shapes: of each link's fixed strip; only strips that are long on the same axis pair up.
        seed: the choice depends on it and on `shapes` alone.
    """
    if not shapes:
        return []
    rng = np.random.default_rng(seed)
    groups: dict[int, list[int]] = defaultdict(list)
    for link, shape in enumerate(shapes):
        groups[int(np.argmin(shape))].append(link)
    count = min(max(len(shapes), _LEAST_COUNT), _MOST_COUNT)
    order = np.concatenate([rng.permutation(len(shapes)) for _ in range(-(-count // len(shapes)))])
    pairs = []
    seen: set[tuple[int, int]] = set()
    for fixed in map(int, order[:count]):
        group = groups[int(np.argmin(shapes[fixed]))]
        moving = group[int(rng.integers(len(group)))]
        roll = float(rng.uniform(0.3, 0.7))
        fresh = moving != fixed and (fixed, moving) not in seen
        seen.add((fixed, moving))
        pairs.append(NullPair(fixed, moving, 0.0 if fresh else roll))
    return pairs


def rolled(strip: Strip, roll: float) -> Strip:
    """The strip with its voxels rolled by a share of its longest axis."""
    axis = int(np.argmax(strip.voxels.shape))
    by = round(roll * strip.voxels.shape[axis])
    mask = None if strip.mask is None else np.roll(strip.mask, by, axis)
    return replace(strip, voxels=np.roll(strip.voxels, by, axis), mask=mask)


def accept(scores: Scores, null_scores: Float[np.ndarray, " m"]) -> Verdict:
    """Accepts the links whose score strips that do not match would hardly reach.

    Args:
        scores: of each link; 0 or NaN where nothing was measured, which is never accepted.
        null_scores: of the pairs of `null_pairs`; those without a peak (0, NaN) do not count.
    """
    location, scale = _gumbel(null_scores[np.nan_to_num(null_scores) > 0])
    valid = np.nan_to_num(scores) > 0
    p_value = np.ones(len(scores))
    p_value[valid] = -np.expm1(-np.exp(-(scores[valid] - location) / scale))
    ranked = np.sort(p_value)
    allowed = FALSE_DISCOVERY_RATE * np.arange(1, len(scores) + 1) / max(len(scores), 1)
    passing = np.flatnonzero(ranked <= allowed)
    limit = allowed[passing[-1]] if len(passing) else FALSE_DISCOVERY_RATE / max(len(scores), 1)
    threshold = location - scale * np.log(-np.log1p(-limit))
    return Verdict(p_value <= limit, float(threshold), p_value, location, scale)


def _gumbel(scores: Scores) -> tuple[float, float]:
    """Location and scale by L-moments (Hosking 1990, doi 10.1111/j.2517-6161.1990.tb01775.x).

    Scores far beyond what the bulk allows are left out: strips paired for the null may show
    the same thing after all (repeated, periodic or mirrored content).
    """
    if len(scores) < _LEAST_NULLS:
        return _NORMAL_LOCATION, _NORMAL_SCALE
    low, high = np.quantile(scores, _BULK)
    reduced = -np.log(-np.log(_BULK))
    spread = (high - low) / (reduced[1] - reduced[0])
    furthest = low + spread * (np.log(len(scores) / _OUTLIER) - reduced[0])
    ranked = np.sort(scores[scores <= furthest])
    n = len(ranked)
    second = float(2 * ranked @ (np.arange(n) / (n - 1)) / n - ranked.mean())
    scale = max(second / np.log(2), 1e-3)
    return float(ranked.mean()) - _EULER * scale, scale
