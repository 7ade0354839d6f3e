"""How tiles that cover the same voxel are combined.

`max`      the brightest wins
`mean`     each counts the same
`linear`   weight = distance to the tile's border: one tile fades into the next
`cosine`   the same with a smooth start and end
`closest`  the tile whose centre is closest wins: no double images
`multiband` closest for fine detail, feathered for coarse (Burt & Adelson 1983,
           doi 10.1145/245.247): no double images and no steps

A margin along y and x, where an image is bent or shaded, can be kept out of `linear`, `cosine`
and `mean`: it counts where no other tile lies. `closest` and `multiband` keep away from borders.

Tiles are taken in the order given, so that sums are reproducible to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8
from scipy import ndimage

from warpbeam.kernels.fuse.warp import OUTSIDE, Warped
from warpbeam.kernels.geometry.box import Box

Image = Float[np.ndarray, "..."]

# Standard deviations, in voxels, at which `multiband` splits fine from coarse.
_BANDS = (2.0, 6.0)
# Blurring cuts a Gaussian at this many standard deviations.
_TAIL = 3.0
# One band is the blur of another: their reaches add up.
MULTIBAND_HALO = round(_TAIL * sum(_BANDS))


@functools.lru_cache(maxsize=16)
def _ramp(n: int) -> Float[np.ndarray, " n"]:
    """Distance to the nearer end of the tile, which lies half a voxel beyond the last one."""
    index = np.arange(n)
    return (np.minimum(index, n - 1 - index) + 0.5).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _smooth_ramp(n: int) -> Float[np.ndarray, " n"]:
    """The same from 0 to 1 in the shape of a cosine."""
    return np.square(np.sin(_ramp(n) * np.float32(np.pi / n)))


def _nearness(piece: Warped) -> Image:
    """Minus the squared distance to the tile's centre, in tile lengths; -inf outside."""
    total: Image = np.zeros((1,) * piece.box.ndim, np.float32)
    for axis, n in enumerate(piece.shape):
        values = piece.from_centre(axis)
        total = total - np.square(values / np.float32(n))
    return total if piece.valid is None else np.where(piece.valid, total, np.float32(-np.inf))


Profile = Callable[[int], Float[np.ndarray, " n"]]
# Weight at the inner end of a margin, as a share of the least one within it.
_FAINT = 1e-3


@functools.lru_cache(maxsize=16)
def _within(profile: Profile, margin: int, n: int) -> Float[np.ndarray, " n"]:
    """A profile between two margins, in which it rises from 0 to next to nothing."""
    wide = min(margin, (n - 1) // 2)
    inner = profile(n - 2 * wide)
    rise = inner[0] * np.float32(_FAINT) * np.arange(1, wide + 1, dtype=np.float32) / (wide + 1)
    return np.concatenate([rise, inner, rise[::-1]]).astype(np.float32)


def _flat(n: int) -> Float[np.ndarray, " n"]:
    return np.ones(n, np.float32)


def _feathered(cell: Box, pieces: Sequence[Warped], profile: Profile, margin: int = 0) -> Image:
    """The mean, weighted by the product of the profiles along the axes.

    Weights next to nothing outside a tile do for an outline, except where all tiles of a
    voxel are at their ends, or in their margins, and a thousandth of them would be no more than
    that: only then the outlines are drawn.
    """
    inner = functools.partial(_within, profile, margin) if margin else profile
    profiles = (*[profile] * (cell.ndim - 2), inner, inner)
    weights = [_weight(piece, profiles, outline=False) for piece in pieces]
    sums = _sum(cell, pieces, weights)
    everywhere = bool(sums.min() >= 1e3 * max(_beyond(piece, profiles) for piece in pieces))
    if not everywhere:
        weights = [_weight(piece, profiles, outline=True) for piece in pieces]
        sums = _sum(cell, pieces, weights)
    for piece, weight in zip(pieces, weights, strict=True):
        weight *= piece.values
    total = _sum(cell, pieces, weights)
    return np.divide(total, sums, out=total, where=True if everywhere else sums > 0)


def _beyond(piece: Warped, profiles: Sequence[Profile]) -> float:
    """The greatest weight outside a tile, see `Warped.spread`."""
    along = [of(n) for of, n in zip(profiles, piece.shape, strict=True)]
    highest = math.prod(float(values.max()) for values in along)
    return float(OUTSIDE) * highest * max(float(v[0] / v.max()) for v in along)


def _weight(piece: Warped, profiles: Sequence[Profile], *, outline: bool) -> Image:
    weight = piece.spread(profiles)
    if outline or piece.upright is None or piece.unmasked is not None:
        return weight if piece.valid is None else weight * piece.valid
    return weight


def _sum(cell: Box, pieces: Sequence[Warped], images: Sequence[Image]) -> Image:
    """The sum over a cell of images on the boxes of the pieces."""
    if pieces[0].box == cell:
        total = images[0].copy()
    else:
        total = np.zeros(cell.shape, np.float32)
        total[pieces[0].box.slices_in(cell)] = images[0]
    for piece, image in zip(pieces[1:], images[1:], strict=True):
        total[piece.box.slices_in(cell)] += image
    return total


def _mean(cell: Box, pieces: Sequence[Warped]) -> Image:
    total = np.zeros(cell.shape, np.float32)
    weights = np.zeros(cell.shape, np.float32)
    for piece in pieces:
        inside = piece.box.slices_in(cell)
        weights[inside] += 1 if piece.valid is None else piece.valid
        total[inside] += piece.values if piece.valid is None else piece.values * piece.valid
    return np.divide(total, weights, out=total, where=weights > 0)


def _paste(out: Num[np.ndarray, "..."], piece: Warped) -> None:
    if piece.valid is None:
        out[...] = piece.values
    else:
        np.copyto(out, piece.values, where=piece.valid)


def _winner(cell: Box, pieces: Sequence[Warped]) -> Image:
    """The index of the piece whose centre is nearest to each voxel; -1 where there is none."""
    best = np.full(cell.shape, -np.inf, np.float32)
    index = np.full(cell.shape, -1, np.float32)
    for i, piece in enumerate(pieces):
        inside = piece.box.slices_in(cell)
        nearness = np.broadcast_to(_nearness(piece), piece.box.shape)
        better = nearness > best[inside]
        best[inside][better] = nearness[better]
        index[inside][better] = i
    return index


def _max(cell: Box, pieces: Sequence[Warped]) -> Image:
    out = np.full(cell.shape, -np.inf, np.float32)
    for piece in pieces:
        inside = piece.box.slices_in(cell)
        values = piece.values
        if piece.valid is not None:
            values = np.where(piece.valid, values, np.float32(-np.inf))
        np.maximum(out[inside], values, out=out[inside])
    return np.where(np.isneginf(out), np.float32(0), out)


def _closest(cell: Box, pieces: Sequence[Warped]) -> Image:
    index = _winner(cell, pieces)
    out = np.zeros(cell.shape, np.float32)
    for i, piece in enumerate(pieces):
        inside = piece.box.slices_in(cell)
        np.copyto(out[inside], piece.values, where=index[inside] == i)
    return out


def _multiband(cell: Box, pieces: Sequence[Warped]) -> Image:
    """Each band of detail is mixed by the winner's mask, blurred as far as the band reaches.

    Where a tile ends its blurred image is renormalised by its own blurred coverage
    (normalised convolution), so that the void outside does not leak in.
    """
    index = _winner(cell, pieces)
    totals = [np.zeros(cell.shape, np.float32) for _ in range(len(_BANDS) + 1)]
    weights = [np.zeros(cell.shape, np.float32) for _ in range(len(_BANDS) + 1)]
    for i, piece in enumerate(pieces):
        inside = piece.box.slices_in(cell)
        covered = np.zeros(cell.shape, np.float32)
        covered[inside] = 1 if piece.valid is None else piece.valid
        finer = np.zeros(cell.shape, np.float32)
        finer[inside] = piece.values
        finer *= covered
        share = (index == i).astype(np.float32)
        for band, sigma in enumerate([*_BANDS, None]):
            coarser = _blur_inside(finer, covered, sigma) if sigma else np.zeros_like(finer)
            weight = share if band == 0 else _blur(share, _BANDS[band - 1]) * covered
            totals[band] += (finer - coarser) * weight
            weights[band] += weight
            finer = coarser
    out = np.zeros(cell.shape, np.float32)
    for total, weight in zip(totals, weights, strict=True):
        out += np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-6)
    return out


def _blur(image: Image, sigma: float) -> Image:
    if image.ndim == 2:
        width = 2 * round(_TAIL * sigma) + 1  # OpenCV's own choice would leave the halo
        return cv2.GaussianBlur(image, (width, width), sigma, borderType=cv2.BORDER_REPLICATE)
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=_TAIL)


def _blur_inside(image: Image, covered: Image, sigma: float) -> Image:
    weight = _blur(covered, sigma)
    return np.divide(
        _blur(image * covered, sigma), weight, out=np.zeros_like(image), where=weight > 1e-6
    ) * covered  # fmt: skip


_BLENDERS: dict[str, Callable[[Box, Sequence[Warped]], Image]] = {
    "max": _max,
    "mean": _mean,
    "linear": functools.partial(_feathered, profile=_ramp),
    "cosine": functools.partial(_feathered, profile=_smooth_ramp),
    "closest": _closest,
    "multiband": _multiband,
}
BLENDINGS = tuple(_BLENDERS)
_PROFILES: dict[str, Profile] = {"linear": _ramp, "cosine": _smooth_ramp, "mean": _flat}


def blend(
    cell: Box, pieces: Sequence[Warped], mode: str, margin: int = 0
) -> Num[np.ndarray, "..."]:
    """Combines warped tiles over `cell`; 0 where no tile lies.

    `margin` is in voxels of the tiles.
    Values are float32, or those of the tile as they are where there is one only.
    """
    if len(pieces) == 1:
        return _single(cell, pieces[0])
    if margin and mode in _PROFILES:
        return _feathered(cell, pieces, _PROFILES[mode], margin)
    return _BLENDERS[mode](cell, pieces)


def _single(cell: Box, piece: Warped) -> Num[np.ndarray, "..."]:
    if piece.valid is None and piece.box == cell:
        return piece.values
    out = np.zeros(cell.shape, piece.values.dtype)
    _paste(out[piece.box.slices_in(cell)], piece)
    return out


def coverage(cell: Box, pieces: Sequence[Warped]) -> UInt8[np.ndarray, "..."]:
    """How many tiles lie on each voxel (255 stands for more)."""
    count = np.zeros(cell.shape, np.uint8)
    for piece in pieces:
        part = count[piece.box.slices_in(cell)]
        more = (part < 255) if piece.valid is None else piece.valid & (part < 255)
        part += more
    return count
