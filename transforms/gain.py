"""Tiles made equally bright: levels over every overlap, then one solve for all gains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.fuse.warp import Warped, reach, warp
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.gain import overlap_levels, solve_gains
from warpbeam.transforms.convert import usable
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.link import by_montage, neighbours
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.shading import ShadingReader, save_gains
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileReader

# Narrower overlaps say little about brightness.
_MIN_OVERLAP = 4
# Overlaps are thinned to about this many voxels: levels are means.
_VOXELS = 200_000
# How much tiles differ before the overlaps are heard: 10 %, and a few grey levels of 100.
_GAIN_SIGMA, _OFFSET_SIGMA = 0.1, 0.03


def list_overlaps(run: RunFolder, converted: Ledger) -> Iterator[Unit]:
    """A unit per tile: it, and the tiles with a higher row that overlap it where they are."""
    there = {source.key for source in usable(run, converted)}
    placed = {p.source.key: p for p in load_placement(run) if p.source.key in there}
    for group in by_montage(p.source for p in placed.values()).values():
        tiles = [placed[source.key] for source in group]
        matrices = [affine.homogeneous(tile.matrix) for tile in tiles]
        found: dict[int, list[PlacedTile]] = {}
        for i, j, _ in neighbours(group, matrices, _MIN_OVERLAP):
            found.setdefault(i, []).append(tiles[j])
        for i, beside in found.items():
            yield tiles[i].source.key, (tiles[i], beside)


class MeasureLevels:
    """Work of the stage `levels`: brightness of a tile and its neighbours over their overlaps.

    Payload: the placed tile, and its placed neighbours.
    """

    def __init__(self, run: RunFolder, channels: int) -> None:
        self._run, self._channels = run, channels

    def setup(self) -> None:
        self._tiles = TileReader(self._run)
        self._shading = ShadingReader(self._run, with_gains=False)

    def __call__(self, key: TileKey, payload: Any) -> Record:
        tile, beside = payload
        return {
            "levels": [
                self._levels(tile, other, channel)
                for other in beside
                for channel in range(self._channels)
            ]
        }

    def _levels(self, tile: PlacedTile, other: PlacedTile, channel: int) -> Record:
        common, found = _common(tile, other), None
        with contextlib.suppress(CorruptImageError):  # whoever draws the tile fails for it
            a, b = self._drawn(tile, common, channel), self._drawn(other, common, channel)
            if a is not None and b is not None:
                box = a.box & b.box
                found = overlap_levels(_thinned(a, box), _thinned(b, box))
        known = found is not None and found.pixels > 0
        return {
            "other": other.source.key,
            "channel": channel,
            "a": found.a.tolist() if found is not None and known else None,
            "b": found.b.tolist() if found is not None and known else None,
            "pixels": found.pixels if found is not None else 0,
        }

    def _drawn(self, tile: PlacedTile, box: Box, channel: int) -> Warped | None:
        matrix, shape = affine.homogeneous(tile.matrix), tile.source.shape
        window = source_box(np.linalg.inv(matrix), shape, box, reach("linear"))
        if not window:
            return None
        pixels, mask = self._tiles.valid(tile.source, channel, window)
        shading = self._shading.of(TileKey(*tile.source.key), channel)
        return warp(TileView(pixels, window, shape, matrix, mask, shading), box)


def _common(tile: PlacedTile, other: PlacedTile) -> Box:
    boxes = [
        affine.bounding_box(affine.homogeneous(t.matrix), Box.of_shape(t.source.shape))
        for t in (tile, other)
    ]
    return boxes[0] & boxes[1]


def _thinned(piece: Warped, box: Box) -> np.ndarray[Any, Any]:
    """Every so-manieth voxel of a part of a piece; NaN where it is not valid."""
    inside = box.slices_in(piece.box)
    values = piece.values[inside]
    if piece.valid is not None:
        values = np.where(piece.valid[inside], values, np.float32(np.nan))
    step = max(1, round((box.size / _VOXELS) ** (1 / box.ndim)))
    return values[(slice(None, None, step),) * box.ndim]


def one_gain(levels: Ledger) -> Iterator[Unit]:
    """The single unit; its payload changes whenever any overlap was measured anew."""
    yield ("gain",), levels.fingerprint()


class SolveGains:
    """Work of the stage `gain`: gain, and offset if wanted, of all tiles, channel by channel."""

    def __init__(self, run: RunFolder, levels: Ledger, channels: int, *, offsets: bool) -> None:
        self._run, self._levels, self._channels = run, levels, channels
        self._offsets = offsets

    def __call__(self, key: Key, payload: Any) -> Record:
        tiles = [placed.source.key for placed in load_placement(self._run)]
        number = {tile: i for i, tile in enumerate(tiles)}
        rows = [
            (number[TileKey(*tile)], number[TileKey(*level["other"])], level)
            for tile, record in self._levels.records()
            for level in record["levels"]
            if level["a"] is not None
        ]
        pairs = [self._solve([r for r in rows if r[2]["channel"] == c], len(tiles))
                 for c in range(self._channels)]  # fmt: skip
        save_gains(self._run, {tile: [p[i] for p in pairs] for i, tile in enumerate(tiles)})
        gains = np.array([[g for g, _ in p] for p in pairs])
        return {"overlaps": len(rows), "gain_min": gains.min(), "gain_max": gains.max()}

    def _solve(self, rows: list[Any], count: int) -> list[tuple[float, float]]:
        levels = np.array([[r["a"], r["b"]] for *_, r in rows], float).reshape(-1, 2, 2)
        bright = float(np.median(levels)) if len(levels) else 1.0
        found = solve_gains(
            np.array([[i, j] for i, j, _ in rows], int).reshape(-1, 2),
            levels,
            np.array([r["pixels"] for *_, r in rows], float),
            count=count,
            gain_sigma=_GAIN_SIGMA,
            offset_sigma=_OFFSET_SIGMA * bright if self._offsets else 0.0,
        )
        return list(zip(found.gain.tolist(), found.offset.tolist(), strict=True))
