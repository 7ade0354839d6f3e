"""The flow from a fixed to a moving image: `fixed(p) ~ moving(p + u(p))` at the nodes.

Coarse to fine: rigid patches are correlated over the whole search range on a level of the mean
pyramid; their vectors, with outliers replaced by their neighbours, are refined by image
deformation on every finer level. Everything is in voxels of the full image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from warpbeam.kernels.flow.deform import EFFECTIVE_WINDOW, HALO, deformation_step
from warpbeam.kernels.flow.match import Matches, MatchSettings, match
from warpbeam.kernels.flow.pyramid import contrast, padded, pyramid, smoothed
from warpbeam.kernels.flow.smooth import continued, smooth_vectors, support
from warpbeam.kernels.geometry.lattice import Lattice

# The least side of a patch on the coarse level, voxels: fewer hold too little to go by.
_LEAST_PATCH = 20
_MOST_HALVINGS = 2
_BUCKET = {2: 64, 3: 16}
# A peak within so many coarse voxels of the smooth field agrees with it.
_AGREEING_VOXELS = 1.5
# Steps cost a quarter and less on coarser levels, and fields that bend within a patch need some.
_EXTRA_STEPS = 1
# A refined vector was predicted by its neighbours, not chosen as the best of many: it needs less
# evidence than a peak.
_REFINED_SIGNIFICANCE = 2.0


@dataclass(frozen=True)
class FlowSettings:
    """What to measure; lengths in voxels of the full image, array order.

    Args:
        patch: side of a patch of the fixed image.
        stride: distance of nodes.
        search: how far from its start a patch is looked for, either way.
        coarse: level of the mean pyramid (1, 2, 4, ...) on which patches are correlated; None
            takes the coarsest on which a patch still has 20 voxels, 4 at most, and `finest`
            where nothing is refined.
        finest: level on which the refinement ends.
        steps: refinement steps on the finest level, coarser ones take one more; 0 keeps rigid
            patches and their peaks.
        every: patches are correlated at every so many-th node along each axis; the others start
            from those around them, and have their peak ratio and sharpness from the nearest.
            Saves time where patches overlap by more than half. 1 where there are no steps.
        min_valid: fraction of a patch that must be known in both images.
        min_significance: a correlation less than this many standard deviations of that of
            unrelated patches is no vector.
        min_support: fraction of the nodes nearby whose peak must agree with the smooth field
            that the refinement starts from.
        min_distance: how far a second peak is from the first, voxels of the coarse level.
        sharpness_radius: how far around the peak sharpness looks, likewise.
    """

    patch: tuple[int, ...]
    stride: tuple[int, ...]
    search: tuple[int, ...]
    coarse: int | None = None
    finest: int = 1
    steps: int = 1
    every: int = 1
    min_valid: float = 0.25
    min_significance: float = 3.5
    min_support: float = 0.3
    min_distance: int = 2
    sharpness_radius: int = 2

    def __post_init__(self) -> None:
        if not all(isinstance(n, Sequence) for n in (self.patch, self.stride, self.search)):
            raise ValueError("patch, stride and search take a number per axis, such as (80, 80)")
        if not len(self.patch) == len(self.stride) == len(self.search):
            raise ValueError(
                f"ranks differ: patch {self.patch}, stride {self.stride}, search {self.search}"
            )
        if min(*self.patch, *self.stride, *self.search) < 1:
            raise ValueError(
                f"patch {self.patch}, stride {self.stride} and search {self.search} must be >= 1"
            )
        for name, level in (("coarse", self.coarse or 1), ("finest", self.finest)):
            if level < 1 or level & (level - 1):
                raise ValueError(f"{name} must be a power of two, got {level}")
        if self.every < 1 or (self.every > 1 and not self.steps):
            raise ValueError(f"every must be >= 1, and 1 without steps, got {self.every}")
        if self.finest > self.coarse_level:
            raise ValueError(f"finest {self.finest} is coarser than coarse {self.coarse_level}")

    @property
    def coarse_level(self) -> int:
        """The level on which patches are correlated."""
        if self.coarse is not None:
            return self.coarse
        if not self.steps:
            return self.finest
        fitting = int(np.log2(max(min(self.patch) / _LEAST_PATCH, 1)))
        return max(int(2 ** min(fitting, _MOST_HALVINGS)), self.finest)


@dataclass(frozen=True)
class Flow:
    """Displacements at the nodes of `lattice`, after any leading axes of the images.

    `vectors` [..., d, (z,) y, x] in voxels of the full image, components in array order; NaN =
    no vector, and then the rest is NaN as well. `ncc` is the correlation at the vector.
    `peak_ratio` is the coarse peak over the second one (inf: there is none; 1: the vector was
    carried over from neighbours and is not that peak), `sharpness` the peak over the least
    value around it (inf: that is not above zero).
    """

    lattice: Lattice
    vectors: Float32[np.ndarray, "..."]
    ncc: Float32[np.ndarray, "..."]
    peak_ratio: Float32[np.ndarray, "..."]
    sharpness: Float32[np.ndarray, "..."]


def flow(
    fixed: Float32[np.ndarray, "..."],
    moving: Float32[np.ndarray, "..."],
    settings: FlowSettings,
    *,
    fixed_mask: Bool[np.ndarray, "..."] | None = None,
    moving_mask: Bool[np.ndarray, "..."] | None = None,
    lattice: Lattice | None = None,
    start: Float32[np.ndarray, "..."] | None = None,
    selection: Bool[np.ndarray, "*nodes"] | None = None,
) -> Flow:
    """Measures the flow from `fixed` to `moving`, [..., (z,) y, x], at the nodes of `lattice`.

    Leading axes (channels, times) of the images must agree and are measured one by one; masks
    may lack them. A mask is True where a voxel is known (SOFIMA's are True where it is not). NaN
    voxels are unknown. The two images may differ in shape.
    `lattice` defaults to every patch that lies in the fixed image. `start` [d, *nodes] is a
    targeting field: the search is around it (NaN: around 0). Nodes where `selection` is False
    get no vector.

    Raises:
        ValueError: ranks or shapes do not fit together, a mask or the selection is not boolean,
            or the image is smaller than a patch.
    """
    rank = len(settings.patch)
    lead = fixed.shape[:-rank] if fixed.ndim >= rank else None
    if lead is None or moving.shape[:-rank] != lead:
        raise ValueError(f"images {fixed.shape} and {moving.shape} do not fit for {rank}-D patches")
    shape = fixed.shape[-rank:]
    lattice = lattice or Lattice.of_patches(shape, settings.patch, settings.stride)
    nodes = lattice.shape
    _check("fixed_mask", fixed_mask, fixed.shape, shape)
    _check("moving_mask", moving_mask, moving.shape, moving.shape[-rank:])
    _check("start", start, (*lead, rank, *nodes), (rank, *nodes))
    _check("selection", selection, nodes, nodes)
    for name, mask in (("fixed_mask", fixed_mask), ("moving_mask", moving_mask),
                       ("selection", selection)):  # fmt: skip
        if mask is not None and mask.dtype != bool:
            raise ValueError(f"{name} is {mask.dtype}; it must be boolean")
    start = np.zeros((rank, *nodes), np.float32) if start is None else np.nan_to_num(start)
    out = np.full((*lead, rank + 3, *nodes), np.nan, np.float32)
    for at in itertools.product(*map(range, lead)):
        masks = [m if m is None or m.ndim == rank else m[at] for m in (fixed_mask, moving_mask)]
        out[at] = _single(
            _Pair.of(fixed[at], moving[at], masks, settings),
            settings,
            lattice,
            start[at] if start.ndim > rank + 1 else start,
            np.ones(nodes, bool) if selection is None else selection,
        )
    axis = len(lead)
    vectors, ncc, ratio, sharpness = (
        np.take(out, i, axis=axis) for i in (range(rank), rank, rank + 1, rank + 2)
    )
    return Flow(lattice, vectors, ncc, ratio, sharpness)


def _check(name: str, array: np.ndarray | None, shape: Sequence[int], short: Sequence[int]) -> None:
    if array is not None and array.shape not in (tuple(shape), tuple(short)):
        raise ValueError(f"{name} has shape {array.shape}, expected {tuple(short)}")


@dataclass(frozen=True)
class _Pair:
    """The pyramids of both images, and each one's mean and deviation on the coarse level."""

    fixed: list[jax.Array]
    moving: list[jax.Array]
    contrasts: tuple[tuple[float, float], tuple[float, float]]

    @classmethod
    def of(
        cls,
        fixed: np.ndarray,
        moving: np.ndarray,
        masks: Sequence[np.ndarray | None],
        settings: FlowSettings,
    ) -> _Pair:
        coarse = settings.coarse_level
        levels = coarse.bit_length()
        both = [
            pyramid(padded(image, mask, _BUCKET[image.ndim] * coarse // 2), levels)
            for image, mask in zip((fixed, moving), masks, strict=True)
        ]
        first, second = (contrast(p[-1]) for p in both)
        return cls(both[0], both[1], (first, second))

    def smooth(self, level: int) -> list[jax.Array]:
        at = level.bit_length() - 1
        return [
            smoothed(p[at], *c, halo=HALO)
            for p, c in zip((self.fixed, self.moving), self.contrasts, strict=True)
        ]


def _single(
    pair: _Pair,
    settings: FlowSettings,
    lattice: Lattice,
    start: np.ndarray,
    selection: np.ndarray,
) -> Float32[np.ndarray, "k *nodes"]:
    """Vectors, ncc, peak ratio and sharpness of one pair of images."""
    nodes, rank, coarse = lattice.shape, len(lattice.shape), settings.coarse_level
    if not selection.any():
        return np.full((rank + 3, *nodes), np.nan, np.float32)
    chosen = _thinned(selection, settings.every)
    found = _coarse(pair, settings, lattice, start, chosen)
    peaks = np.full((rank, *nodes), np.nan)
    rest = np.full((5, *nodes), np.nan)
    rest[:, chosen] = [found.ncc, found.ratio, found.sharpness, found.significance, found.grain]
    peaks[:, chosen] = found.shift.T * coarse
    ncc, ratio, sharpness, significance, grain = rest
    peaks[:, ~(significance >= settings.min_significance)] = np.nan
    vectors = peaks
    if settings.steps:
        vectors, ncc = _refined(
            pair, settings, lattice, peaks, np.isfinite(ncc), grain * coarse**rank
        )
        moved = np.abs(vectors - peaks).max(axis=0)
        ratio = np.where(moved <= 2 * coarse, ratio, 1)
        if settings.every > 1:
            nearest = ndimage.distance_transform_edt(
                ~chosen, return_distances=False, return_indices=True
            )
            ratio, sharpness = ratio[tuple(nearest)], sharpness[tuple(nearest)]
    out = np.concatenate([vectors, ncc[None], ratio[None], sharpness[None]])
    out[:, ~(selection & np.isfinite(vectors).all(axis=0))] = np.nan
    return out.astype(np.float32)


def _thinned(selection: np.ndarray, every: int) -> np.ndarray:
    """Every so many-th node of a selection; all of it where that leaves none."""
    kept = np.zeros_like(selection)
    kept[(slice(None, None, every),) * selection.ndim] = True
    thin = selection & kept
    return thin if thin.any() else selection


def _coarse(
    pair: _Pair,
    settings: FlowSettings,
    lattice: Lattice,
    start: np.ndarray,
    selection: np.ndarray,
) -> Matches:
    """The coarse matches of the selected nodes, in voxels of the coarse level."""
    coarse = settings.coarse_level
    patch = tuple(max(round(p / coarse), 1) for p in settings.patch)
    search = tuple(-(-s // coarse) for s in settings.search)
    centres = lattice.at_scale(coarse).nodes()[:, selection].T
    return match(
        pair.fixed[-1],
        pair.moving[-1],
        MatchSettings(
            patch,
            search,
            settings.min_valid,
            settings.min_distance,
            settings.sharpness_radius,
        ),
        corners=np.rint(centres - (np.asarray(patch) - 1) / 2).astype(int),
        starts=np.rint(start[:, selection].T / coarse).astype(int),
    )


def _refined(
    pair: _Pair,
    settings: FlowSettings,
    lattice: Lattice,
    peaks: np.ndarray,
    measured: np.ndarray,
    grain: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and ncc after the deformation steps, from the coarsest level to the finest."""
    level = settings.coarse_level
    radius = max(round(max(np.divide(settings.patch, lattice.stride)) / 2), settings.every)
    vectors = smooth_vectors(peaks, np.ones(lattice.shape), radius=radius)
    agreeing = np.abs(peaks - vectors).max(axis=0) <= _AGREEING_VOXELS * level
    known = support(agreeing, measured, radius=radius) >= settings.min_support
    raw = np.where(agreeing & known, peaks, np.nan)
    weights = np.ones(lattice.shape)
    best = np.full(lattice.shape, np.nan)
    if not known.any():
        return np.full_like(peaks, np.nan), best
    while True:
        images = pair.smooth(level)
        window = tuple(float(p) / level for p in settings.patch)
        for _ in range(settings.steps + (_EXTRA_STEPS if level > settings.finest else 0)):
            begin = continued(smooth_vectors(raw, weights, radius=radius))
            step = deformation_step(
                images[0],
                images[1],
                begin / level,
                lattice.at_scale(level),
                window=window,
                min_coverage=settings.min_valid,
            )
            raw = np.where(known, begin + step.shift * level, np.nan)
            best = np.fmax(best, step.ncc)
            weights = np.nan_to_num(np.maximum(step.ncc, 0) ** 2 * step.coverage)
        if level == settings.finest:
            break
        level //= 2
    samples = step.coverage * np.prod(settings.patch) * EFFECTIVE_WINDOW ** len(lattice.shape)
    raw[:, ~(best * np.sqrt(samples / np.fmax(grain, 1)) >= _REFINED_SIGNIFICANCE)] = np.nan
    return raw, step.ncc
