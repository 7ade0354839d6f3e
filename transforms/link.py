"""Neighbouring tiles are compared: a unit per tile, holding its links to later tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.layout import overlapping_pairs
from warpbeam.kernels.montage.null import NullPair, null_pairs, rolled
from warpbeam.kernels.montage.pair import Link, Strip, coarse_peak, measure_link, strip_boxes
from warpbeam.kernels.montage.reduce import in_full, reduced
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.shading import ShadingReader
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Key, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import TileReader, TileSource

# Null measurements in one unit: about a second of work.
_NULLS_PER_UNIT = 16
# By what share of its longest axis a strip is rolled so that it matches nothing.
_ROLL = 0.5
# On all axes but one, neighbours share at least this part of the smaller tile: tiles that
# meet at a corner only add little, and their strips are mostly chance.
_FACE = 0.25


@dataclass(frozen=True)
class LinkSettings:
    """How tiles are compared.

    Attributes:
        channel: index of the channel.
        search: farthest error of the stage between neighbours, voxels on each axis.
        min_overlap: narrowest nominal overlap that is compared, voxels.
        blocks: point pairs per link; more than 1 tells rotation and scale.
        reduction: how many times tiles are reduced along y and x before they are compared.
    """

    channel: int
    search: tuple[int, ...]
    min_overlap: int
    blocks: int
    reduction: int

    @property
    def factor(self) -> tuple[int, ...]:
        """The reduction on each axis."""
        return (*(1 for _ in self.search[:-2]), self.reduction, self.reduction)

    def reduced_offset(self, offset: Sequence[float]) -> tuple[float, ...]:
        """An offset in reduced voxels."""
        return tuple(o / k for o, k in zip(offset, self.factor, strict=True))

    @property
    def reduced_search(self) -> tuple[int, ...]:
        """The search in reduced voxels."""
        return tuple(-(-s // k) for s, k in zip(self.search, self.factor, strict=True))


class Neighbour(NamedTuple):
    """A tile beside another: it, and the stage's opinion of its offset in voxels of the other."""

    source: TileSource
    offset: tuple[float, ...]


class StripRef(NamedTuple):
    """A part of a tile that is compared."""

    source: TileSource
    start: tuple[int, ...]
    stop: tuple[int, ...]


def by_montage(sources: Iterable[TileSource]) -> dict[MontageKey, list[TileSource]]:
    """Tiles that are placed together."""
    groups: dict[MontageKey, list[TileSource]] = {}
    for source in sources:
        groups.setdefault(source.key.montage, []).append(source)
    return groups


def neighbours(
    sources: Sequence[TileSource], matrices: Sequence[affine.Matrix], min_overlap: int
) -> Iterator[tuple[int, int, tuple[float, ...]]]:
    """Pairs `(i, j, offset)` of one montage whose faces overlap where `matrices` place them."""
    boxes = [
        affine.bounding_box(m, Box.of_shape(s.shape))
        for s, m in zip(sources, matrices, strict=True)
    ]
    start, stop = (np.array([getattr(b, end) for b in boxes], float) for end in ("start", "stop"))
    for i, j in overlapping_pairs(start, stop, min_extent=min_overlap).tolist():
        common = boxes[i] & boxes[j]
        smaller = np.minimum(boxes[i].shape, boxes[j].shape)
        if np.count_nonzero(np.array(common.shape) < _FACE * smaller) <= 1:
            yield i, j, _offset(matrices[i], matrices[j], common)


def _offset(fixed: affine.Matrix, moving: affine.Matrix, common: Box) -> tuple[float, ...]:
    """How far the moving tile lies in voxels of the fixed one, at the middle of the overlap."""
    middle = (np.add(common.start, common.stop) - 1)[None] / 2
    apart = affine.apply(np.linalg.inv(fixed), middle) - affine.apply(np.linalg.inv(moving), middle)
    return tuple(apart[0].tolist())


def list_links(
    sources: Iterable[TileSource], settings: LinkSettings, shading: str = ""
) -> Iterator[Unit]:
    """A unit per tile: its neighbours with a higher row.

    `shading` is a fingerprint of the flat fields, which the comparison depends on.
    """
    for group in by_montage(sources).values():
        stage = [affine.homogeneous(s.stage) for s in group]
        found: dict[int, list[Neighbour]] = {}
        for i, j, offset in neighbours(group, stage, settings.min_overlap):
            found.setdefault(i, []).append(Neighbour(group[j], offset))
        for i, beside in found.items():
            yield group[i].key, (group[i], beside, shading)


def list_nulls(
    sources: Iterable[TileSource], settings: LinkSettings, shading: str = ""
) -> Iterator[Unit]:
    """Units of strips that cannot match, drawn from those of the real links."""
    links = []
    for _, (fixed, beside, _) in list_links(sources, settings):
        for moving in beside:
            boxes = strip_boxes(
                fixed.shape, moving.source.shape, offset=moving.offset, search=settings.search
            )
            links.append((_ref(fixed, boxes[0]), _ref(moving.source, boxes[1]), moving.offset))
    shapes = [Box(fixed.start, fixed.stop).shape for fixed, _, _ in links]
    drawn = [_null(links, pair) for pair in null_pairs(shapes, seed=0)]
    for first in range(0, len(drawn), _NULLS_PER_UNIT):
        yield ("null", first), (drawn[first : first + _NULLS_PER_UNIT], shading)


def _ref(source: TileSource, box: Box) -> StripRef:
    return StripRef(source, box.start, box.stop)


def _null(links: list[Any], pair: NullPair) -> tuple[StripRef, StripRef, Any, float]:
    fixed, beside, offset = links[pair.fixed_link]
    moving = links[pair.moving_link][1]
    # Any strip of the tile that does lie there can match: it is rolled, like the link's own.
    same = moving.source.key == beside.source.key
    return fixed, moving, offset, pair.roll or (_ROLL if same else 0.0)


class _Strips:
    """Reads strips of the compared channel, with the shading that all tiles share removed,
    reduced as they are compared."""

    def __init__(self, run: RunFolder, settings: LinkSettings) -> None:
        self._tiles = TileReader(run)
        self._shading = ShadingReader(run, with_gains=False)
        self._channel, self._factor = settings.channel, settings.factor

    def read(self, ref: StripRef) -> Strip:
        source, box = ref.source, Box(ref.start, ref.stop)
        pixels = self._tiles.pixels(source, self._channel, box)
        shading = self._shading.of(source.key, self._channel)
        mask = self._tiles.mask(source, box)
        return reduced(Strip(shading.correct(pixels, box), box.start, mask), self._factor)


class MeasureLinks:
    """Work of the stage `link`: one tile against its neighbours.

    Payload: the tile, its neighbours, a fingerprint of the shading. Record: a measured link
    per neighbour.
    """

    def __init__(self, run: RunFolder, settings: LinkSettings) -> None:
        self._run, self._settings = run, settings

    def setup(self) -> None:
        self._strips = _Strips(self._run, self._settings)

    def __call__(self, key: TileKey, payload: Any) -> Record:
        fixed, beside, _ = payload
        links, read = [], 0
        for moving in beside:
            boxes = strip_boxes(
                fixed.shape, moving.source.shape, offset=moving.offset, search=self._settings.search
            )
            try:
                a = self._strips.read(_ref(fixed, boxes[0]))
                b = self._strips.read(_ref(moving.source, boxes[1]))
            except CorruptImageError as problem:
                links.append(_link_record(moving, _unreadable(problem, len(fixed.shape))))
                continue
            read += a.voxels.nbytes + b.voxels.nbytes
            link = measure_link(
                a, b, offset=self._settings.reduced_offset(moving.offset),
                search=self._settings.reduced_search, blocks=self._settings.blocks,
            )  # fmt: skip
            links.append(_link_record(moving, in_full(link, self._settings.factor)))
        return {"bytes_read": read, "links": links}


def _unreadable(problem: CorruptImageError, ndim: int) -> Link:
    """Stands for a link of a corrupt tile, which fusing it will report; the others go on."""
    none = np.empty((0, ndim))
    reason = f"{problem.what}: {problem.where}"
    return Link(none, none, np.empty((0, ndim, ndim)), 0.0, float("nan"), 0, reason)


def _link_record(moving: Neighbour, link: Link) -> Record:
    return {
        "moving": moving.source.key,
        "offset": moving.offset,
        "fixed_points": link.fixed_points.tolist(),
        "moving_points": link.moving_points.tolist(),
        "information": link.information.tolist(),
        "score": link.score,
        "ncc": None if np.isnan(link.ncc) else link.ncc,
        "overlap": link.overlap,
        "reason": link.reason,
    }


class MeasureNulls:
    """Work of the stage `null`: scores of strips that cannot match."""

    def __init__(self, run: RunFolder, settings: LinkSettings) -> None:
        self._run, self._settings = run, settings

    def setup(self) -> None:
        self._strips = _Strips(self._run, self._settings)

    def __call__(self, key: Key, payload: Any) -> Record:
        scores = []
        for fixed, moving, offset, roll in payload[0]:
            try:
                a, b = self._strips.read(fixed), rolled(self._strips.read(moving), roll)
            except CorruptImageError:
                continue
            peak = coarse_peak(
                a, b, offset=self._settings.reduced_offset(offset),
                search=self._settings.reduced_search,
            )  # fmt: skip
            scores.append(peak.score)
        return {"scores": scores}
