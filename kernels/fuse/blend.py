"""How tiles that cover the same voxel are combined.

`max`      the brightest wins
`mean`     each counts the same
`linear`   weight = distance to the tile's border: one tile fades into the next
`cosine`   the same with a smooth start and end
`closest`  the tile whose centre is closest wins: no double images
`multiband` closest for fine detail, feathered for coarse (Burt & Adelson 1983,
           doi 10.1145/245.247): no double images and no steps

Tiles are taken in the order given, so that sums are reproducible to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from warpbeam.kernels.fuse.warp import Warped
from warpbeam.kernels.geometry.box import Box

Image = Float[np.ndarray, "..."]
Blender = Callable[[Box, Sequence[Warped]], tuple[Image, Image]]

# Standard deviations, in voxels, at which `multiband` splits fine from coarse.
_BANDS = (2.0, 6.0)
MULTIBAND_HALO = round(3 * _BANDS[-1])


def _depth(piece: Warped) -> Image:
    """Distance to the nearest border along each axis, multiplied up; 0 outside the tile."""
    depth: Image = np.ones((1,) * piece.box.ndim, np.float32)
    for values, n in zip(piece.from_centre, piece.shape, strict=True):
        # A voxel on the very border is covered too: its weight is small, never 0.
        to_border = np.float32(n / 2 + 1e-3) - np.abs(values)
        depth = depth * np.maximum(to_border, np.float32(1e-3), out=to_border)
    return depth if piece.valid is None else depth * piece.valid


def _smooth_depth(piece: Warped) -> Image:
    """`_depth` with a cosine ramp from the border to the middle of the tile."""
    depth: Image = np.ones((1,) * piece.box.ndim, np.float32)
    for values, n in zip(piece.from_centre, piece.shape, strict=True):
        angle = np.abs(values) * np.float32(np.pi / (n + 2e-3))
        depth = depth * np.square(np.maximum(np.cos(angle), np.float32(1e-3)))
    return depth if piece.valid is None else depth * piece.valid


def _uniform(piece: Warped) -> Image:
    ones = np.ones((1,) * piece.box.ndim, np.float32)
    return ones if piece.valid is None else piece.valid.astype(np.float32)


def _nearness(piece: Warped) -> Image:
    """Minus the squared distance to the tile's centre, in tile lengths; -inf outside."""
    total: Image = np.zeros((1,) * piece.box.ndim, np.float32)
    for values, n in zip(piece.from_centre, piece.shape, strict=True):
        total = total - np.square(values / np.float32(n))
    return total if piece.valid is None else np.where(piece.valid, total, np.float32(-np.inf))


def _average(cell: Box, pieces: Sequence[Warped], weigh: Callable[[Warped], Image]) -> Image:
    total = np.zeros(cell.shape, np.float32)
    weights = np.zeros(cell.shape, np.float32)
    for piece in pieces:
        inside = piece.box.relative_to(cell.start).slices
        weight = weigh(piece)
        total[inside] += piece.values * weight
        weights[inside] += weight
    np.divide(total, weights, out=total, where=weights > 0)
    return total


def _winner(cell: Box, pieces: Sequence[Warped]) -> Image:
    """The index of the piece whose centre is nearest to each voxel; -1 where there is none."""
    best = np.full(cell.shape, -np.inf, np.float32)
    index = np.full(cell.shape, -1, np.float32)
    for i, piece in enumerate(pieces):
        inside = piece.box.relative_to(cell.start).slices
        nearness = np.broadcast_to(_nearness(piece), piece.box.shape)
        better = nearness > best[inside]
        best[inside][better] = nearness[better]
        index[inside][better] = i
    return index


def _max(cell: Box, pieces: Sequence[Warped]) -> Image:
    out = np.full(cell.shape, -np.inf, np.float32)
    for piece in pieces:
        inside = piece.box.relative_to(cell.start).slices
        values = piece.values
        if piece.valid is not None:
            values = np.where(piece.valid, values, np.float32(-np.inf))
        np.maximum(out[inside], values, out=out[inside])
    return np.where(np.isneginf(out), np.float32(0), out)


def _closest(cell: Box, pieces: Sequence[Warped]) -> Image:
    index = _winner(cell, pieces)
    out = np.zeros(cell.shape, np.float32)
    for i, piece in enumerate(pieces):
        inside = piece.box.relative_to(cell.start).slices
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
        inside = piece.box.relative_to(cell.start).slices
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
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)


def _blur_inside(image: Image, covered: Image, sigma: float) -> Image:
    weight = _blur(covered, sigma)
    return np.divide(
        _blur(image * covered, sigma), weight, out=np.zeros_like(image), where=weight > 1e-6
    ) * covered  # fmt: skip


_BLENDERS: dict[str, Callable[[Box, Sequence[Warped]], Image]] = {
    "max": _max,
    "mean": lambda cell, pieces: _average(cell, pieces, _uniform),
    "linear": lambda cell, pieces: _average(cell, pieces, _depth),
    "cosine": lambda cell, pieces: _average(cell, pieces, _smooth_depth),
    "closest": _closest,
    "multiband": _multiband,
}
BLENDINGS = tuple(_BLENDERS)


def blend(cell: Box, pieces: Sequence[Warped], mode: str) -> Image:
    """Combines warped tiles into float32 values over `cell`; 0 where no tile lies."""
    if len(pieces) == 1:
        return _single(cell, pieces[0])
    return _BLENDERS[mode](cell, pieces)


def _single(cell: Box, piece: Warped) -> Image:
    values = piece.values
    if piece.valid is not None:
        values = np.where(piece.valid, values, np.float32(0))
    if piece.box == cell:
        return values
    out = np.zeros(cell.shape, np.float32)
    out[piece.box.relative_to(cell.start).slices] = values
    return out


def coverage(cell: Box, pieces: Sequence[Warped]) -> UInt8[np.ndarray, "..."]:
    """How many tiles lie on each voxel (255 stands for more)."""
    count = np.zeros(cell.shape, np.uint8)
    for piece in pieces:
        part = count[piece.box.relative_to(cell.start).slices]
        more = (part < 255) if piece.valid is None else piece.valid & (part < 255)
        part += more
    return count
