"""Seams close up: two neighbours on top of one another, at stage and at solved positions."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from warpbeam.kernels.fuse import view, warp
from warpbeam.kernels.fuse.bend import Bend
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.linear.pearson import pearson
from warpbeam.pipelines.report import pictures
from warpbeam.pipelines.report.page import Group, Part, Picture
from warpbeam.pipelines.report.reading import Row, Run
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.shading import ShadingReader
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.tiles import PlacedTile, TileReader

Array = np.ndarray[Any, Any]

_MOST_SEAMS = 4
_CROP_PX = 176
_LEAST_CROP_PX = 48
# The overlap of large tiles is compared on its middle part.
_LONGEST_PX = 2048
SHOWN_PX = 264
# Noise of the background would be painted red or cyan, so its lower part is black.
_CROP_PERCENTILES = (25.0, 99.7)
_FULL_DIFFERENCE = 0.5
# Noise differs from tile to tile; what is left when it is averaged is a real difference.
_DIFFERENCE_SIGMA_PX = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Two tiles on the same world voxels (yx), NaN where a tile is not."""

    a: Array
    b: Array

    @property
    def ncc(self) -> float:
        """Pearson correlation of the grey values that both tiles have; NaN without any."""
        return pearson(self.a, self.b)


@dataclass(frozen=True)
class Seam:
    """A link and its tiles, drawn twice.

    Attributes:
        row: of `links.parquet`.
        before: a detail at the positions of the stage.
        after: the same detail of tile a, at the solved positions.
        ncc_before: correlation of the tiles over their overlap by the stage.
        ncc_after: the same over the solved overlap.
    """

    row: Row
    before: Pair
    after: Pair
    ncc_before: float
    ncc_after: float


def part(run: Run) -> Part | None:
    """The seams with the largest errors; None where no two tiles were linked."""
    rows = choose(run)
    if not rows:
        return None
    try:
        painter = SeamPainter(run)
        groups = [_group(painter.seam(row), _where(run, row)) for row in rows]
    except (InputError, OSError) as error:
        # A report is often made anew when the tiles have long been moved away.
        _log.warning("the seams are left out, because a tile cannot be read: %s", error)
        return Part("seams", "Seams", f"The tiles cannot be read any more: {error}")
    text = (
        "The seams where the stage was most wrong, and those where the solved positions agree "
        "least. One tile is red and the other cyan, in the same contrast, so that what fits is "
        "grey; the difference (smoothed by 1 px) is black where both tiles are the same."
    )
    return Part("seams", "Seams", text, groups)


def choose(run: Run) -> list[Row]:
    """The links to look at: largest stage errors, largest residuals, one that was rejected."""
    usable = [r for r in run.links if r["residual_px"] is not None and not _failed(run, r)]
    kept = [r for r in usable if r["kept"]]
    rejected = [r for r in usable if not r["kept"]]
    chosen = heapq.nlargest(_MOST_SEAMS // 2, kept, key=lambda r: r["stage_error_px"])
    for row in heapq.nlargest(_MOST_SEAMS, kept, key=lambda r: r["residual_px"]):
        if row not in chosen:
            chosen.append(row)
    most = _MOST_SEAMS - bool(rejected)
    return chosen[:most] + heapq.nlargest(1, rejected, key=lambda r: r["score"])


def _keys(row: Row) -> list[TileKey]:
    return [TileKey(row["time"], row["section"], row[name]) for name in ("tile_a", "tile_b")]


def _where(run: Run, row: Row) -> str:
    key = MontageKey(row["time"], row["section"])
    return f"{run.montage_name(key)}: " if len(run.montages) > 1 else ""


def _failed(run: Run, row: Row) -> bool:
    return any(key in run.failed_tiles or key not in run.tile_of for key in _keys(row))


class SeamPainter:
    """Draws pairs of tiles; it keeps the files that it has opened."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._channel = run.summary["config"]["link"]["channel"]
        self._tiles = TileReader(run.folder)
        self._shading = ShadingReader(run.folder)
        self._bends = BendReader(run.folder)

    def bent_seam(self, row: Row) -> Seam:
        """The tiles of a link at their solved positions, straight and bent."""
        a, b = tiles = tuple(self._run.tile_of[key] for key in _keys(row))
        matrices = [affine.homogeneous(p.matrix) for p in tiles]
        overlap = _overlap(a, b, matrices)
        straight = self._pair((a, b), matrices, overlap)
        bent = self._pair((a, b), matrices, overlap, bent=True)
        lead = overlap.ndim - 2
        detail = _detail(bent.a, 2).shift(overlap.start[-2:])
        box = Box((*overlap.start[:lead], *detail.start),
                  (*overlap.stop[:lead], *detail.stop))  # fmt: skip
        return Seam(
            row,
            self._pair((a, b), matrices, box),
            self._pair((a, b), matrices, box, bent=True),
            straight.ncc,
            bent.ncc,
        )

    def seam(self, row: Row) -> Seam:
        """The tiles of a link, before and after."""
        a, b = (self._run.tile_of[key] for key in _keys(row))
        stage = tuple(affine.homogeneous(p.source.stage) for p in (a, b))
        solved = tuple(affine.homogeneous(p.matrix) for p in (a, b))
        overlaps = [_overlap(a, b, matrices) for matrices in (stage, solved)]
        before, after = (
            self._pair((a, b), matrices, box)
            for matrices, box in zip((stage, solved), overlaps, strict=True)
        )
        margin = round(row["stage_error_px"]) + 2
        detail = _detail(after.a, margin).shift(overlaps[1].start[-2:])
        lead = overlaps[1].ndim - 2
        box = Box((*overlaps[1].start[:lead], *detail.start),
                  (*overlaps[1].stop[:lead], *detail.stop))  # fmt: skip
        centre = (np.array([box.start], float) + np.array([box.stop]) - 1) / 2
        moved = affine.apply(stage[0] @ np.linalg.inv(solved[0]), centre) - centre
        by_stage = box.shift(tuple(np.rint(moved[0]).astype(int).tolist()))
        return Seam(
            row,
            self._pair((a, b), stage, by_stage),
            self._pair((a, b), solved, box),
            before.ncc,
            after.ncc,
        )

    def _pair(
        self,
        tiles: tuple[PlacedTile, PlacedTile],
        matrices: Sequence[affine.Matrix],
        box: Box,
        *,
        bent: bool = False,
    ) -> Pair:
        bends = [self._bends.of(t.source.key) if bent else None for t in tiles]
        drawn = zip(tiles, matrices, bends, strict=True)
        return Pair(*(self._draw(t, m, box, bend) for t, m, bend in drawn))

    def _draw(
        self, placed: PlacedTile, matrix: affine.Matrix, box: Box, bend: Bend | None
    ) -> Array:
        source = placed.source
        drawn = np.full(box.shape, np.nan, np.float32)
        margin = warp.reach("linear") + (0 if bend is None else bend.reach)
        window = view.source_box(np.linalg.inv(matrix), source.shape, box, margin)
        if window:
            given = view.TileView(
                self._tiles.pixels(source, self._channel, window),
                window,
                source.shape,
                matrix,
                self._tiles.mask(source, window),
                self._shading.of(source.key, self._channel),
                bend,
            )
            found = warp.warp(given, box)
            if found is not None:
                valid = np.ones(found.box.shape, bool) if found.valid is None else found.valid
                place = found.box.relative_to(box.start).slices
                drawn[place] = np.where(valid, found.values, np.float32(np.nan))
        return drawn.reshape(box.shape[-2:])


def _overlap(a: PlacedTile, b: PlacedTile, matrices: Sequence[affine.Matrix]) -> Box:
    """The world voxels that both tiles can cover, of bounded size; the middle plane in 3-D."""
    boxes = [
        affine.bounding_box(m, Box.of_shape(p.source.shape))
        for m, p in zip(matrices, (a, b), strict=True)
    ]
    common = boxes[0] & boxes[1]
    most = (1,) * (common.ndim - 2) + (_LONGEST_PX,) * 2
    size = tuple(max(1, min(n, limit)) for n, limit in zip(common.shape, most, strict=True))
    start = tuple(
        s + (n - k) // 2 for s, n, k in zip(common.start, common.shape, size, strict=True)
    )
    return Box.of_shape(size, start)


def _detail(image: Array, margin: int) -> Box:
    """The part of an image, away from its edge, where there is most to see."""
    values = np.nan_to_num(image)
    low, high = np.percentile(values, (1, 99))
    values = np.clip(values, low, high).astype(np.float64)
    size = tuple(min(n, _CROP_PX, 2 * min(values.shape)) for n in values.shape)
    size = tuple(
        max(s - 2 * max(0, margin - (n - s) // 2), min(s, _LEAST_CROP_PX))
        for s, n in zip(size, values.shape, strict=True)
    )
    sums = [cv2.integral(v) for v in (values, values**2)]
    mean, square = (_window_sums(s, size) / (size[0] * size[1]) for s in sums)
    variance = square - mean**2
    edge = [min(margin, (n - 1) // 2) for n in variance.shape]
    inner = variance[edge[0] : variance.shape[0] - edge[0], edge[1] : variance.shape[1] - edge[1]]
    y, x = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return Box.of_shape(size, (int(y) + edge[0], int(x) + edge[1]))


def _window_sums(integral: Array, size: tuple[int, ...]) -> Array:
    h, w = size
    return integral[h:, w:] - integral[:-h, w:] - integral[h:, :-w] + integral[:-h, :-w]


def paint(seam: Seam) -> list[Array]:
    """Composite and difference before, composite and difference after: uint8."""
    window, b_to_a = _window(seam.after.a), _match(seam.after)
    painted = []
    for pair in (seam.before, seam.after):
        a, b = _scaled(pair.a, window), _scaled(pair.b * b_to_a[0] + b_to_a[1], window)
        painted.append(pictures.grey(np.stack([a, b, b], axis=-1), (0.0, 1.0)))
        apart = cv2.GaussianBlur(np.nan_to_num(a - b), (0, 0), _DIFFERENCE_SIGMA_PX)
        painted.append(pictures.grey(np.abs(apart), (0.0, _FULL_DIFFERENCE)))
    return painted


def _match(pair: Pair) -> tuple[float, float]:
    """Factor and offset that give tile b the mean and the contrast of tile a."""
    both = np.isfinite(pair.a) & np.isfinite(pair.b)
    if not both.any() or pair.b[both].std() == 0:
        return 1.0, 0.0
    a, b = pair.a[both], pair.b[both]
    factor = float(a.std() / b.std())
    return factor, float(a.mean() - factor * b.mean())


def _window(values: Array) -> pictures.Window:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, _CROP_PERCENTILES) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _scaled(values: Array, window: pictures.Window) -> Array:
    return np.clip((values - window[0]) / (window[1] - window[0]), 0, 1)


def _px(value: float) -> str:
    return "under 0.01" if value < 0.01 else f"{value:.2f}"


def _group(seam: Seam, where: str) -> Group:
    row = seam.row
    captions = ("stage", "stage, difference", "solved", "solved, difference")
    shown = [
        Picture(pictures.png(p), caption, SHOWN_PX * p.shape[1] // max(p.shape[:2]), raw=True)
        for p, caption in zip(paint(seam), captions, strict=True)
    ]
    kept = "" if row["kept"] else f", rejected: {row['reason'] or 'against the others'}"
    text = (
        f"Error {row['stage_error_px']:.2f} px at the stage, {_px(row['residual_px'])} px solved; "
        f"correlation over the overlap {seam.ncc_before:.2f}, then {seam.ncc_after:.2f}."
    )
    return Group(shown, f"{where}{row['tile_a']} and {row['tile_b']}{kept}", text)
