"""Sections as they lie in the world, at any reduction.

A reduction by `k` is the mean of k x k pixels: its pixel `i` has its centre at
`k * i + (k - 1) / 2` of the full image, in a section as in the world.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from warpbeam.kernels.flow.exclude import Exclusion, excluded
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.shading.contrast import Range
from warpbeam.transforms.align.frame import reduced_uri
from warpbeam.transforms.convert import usable
from warpbeam.transforms.grey import sampled_range, with_nan
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tile_store import CHUNK, TileStore
from warpbeam.transforms.tiles import PlacedTile, TileReader, TileSource, load_sources

Image = Float32[np.ndarray, "y x"]
Pixels = np.ndarray[Any, Any]
# Lists the sections whose pixels can be had, once the stage that copies them has ended.
Readable = Callable[[], Iterable[TileSource]]

# Reduced pixels that are made at a time: whole chunks, and 64 MB of a section reduced 4-fold.
_BLOCK = 2 * CHUNK[2][0]
_MASK = 1  # the second channel of a reduced section


@dataclass(frozen=True)
class SectionSettings:
    """What of a section is aligned.

    Attributes:
        channel: that is compared.
        exclusions: what is not compared.
    """

    channel: int
    exclusions: tuple[Exclusion, ...] = ()


class ReduceSection:
    """Work of the stage `reduce`: every reduction of one section.

    Payload: `[source]`.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: SectionSettings,
        scales: tuple[int, ...],
        shape: tuple[int, ...],
        dtype: str,
    ) -> None:
        self._run, self._settings, self._scales = run, settings, scales
        self._shape, self._dtype = shape, dtype

    def setup(self) -> None:
        rows, height, width = self._shape
        self._reader = SectionReader(self._run, self._settings)
        self._stores = {
            k: TileStore.create(
                reduced_uri(self._run, k), (rows, 2, height // k, width // k), self._dtype
            )
            for k in self._scales
        }

    def __call__(self, key: TileKey, payload: Any) -> Record:
        (source,) = payload
        read = written = 0
        for scale, target in self._stores.items():
            shape = tuple(n // scale for n in source.shape)
            grid = BlockGrid(shape, (_BLOCK, _BLOCK))
            for block in map(grid.box, grid.indices()):
                box = Box(
                    tuple(a * scale for a in block.start), tuple(b * scale for b in block.stop)
                )
                pixels, known = self._reader.source_pixels(source, box)
                small, share = _reduced(pixels, known, scale)
                read += pixels.nbytes
                for channel, part in ((0, small), (_MASK, share)):
                    if part is not None:
                        part = part.astype(self._dtype)
                        written += target.write(source.row, channel, part, block.start)
        return {"bytes_read": read, "bytes_written": written}


def _reduced(
    pixels: Pixels, known: Bool[np.ndarray, "y x"] | None, scale: int
) -> tuple[Pixels, Pixels | None]:
    """Means of the known pixels, and where at least half of them are known (1, else 0)."""
    size = (pixels.shape[1] // scale, pixels.shape[0] // scale)
    if known is None:
        if pixels.dtype.name not in ("uint8", "uint16", "float32"):
            pixels = pixels.astype(np.float32)
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), None
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(
        np.where(known, pixels, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA
    )
    return total / np.maximum(share, 1e-6), share >= 0.5


class SectionReader:
    """Reads sections of a run; one per worker."""

    def __init__(self, run: RunFolder, settings: SectionSettings) -> None:
        self._run, self._settings = run, settings
        self._tiles = TileReader(run)
        self._reduced = functools.cache(lambda scale: TileStore.open(reduced_uri(run, scale)))
        self.grey_range = functools.lru_cache(maxsize=256)(self._grey_range)

    def image(self, placed: PlacedTile, scale: int, box: Box) -> Image:
        """A section on a box of the world, both in pixels of the reduction; NaN = no data."""
        to_world = _at_scale(affine.homogeneous(placed.matrix), scale)
        inverse = np.linalg.inv(to_world)
        extent = Box.of_shape(tuple(n // scale for n in placed.source.shape))
        window = affine.bounding_box(inverse, box).pad((2, 2)) & extent
        out = np.full(box.shape, np.nan, np.float32)
        if not window:
            return out
        pixels = self._known(placed.source, scale, window)
        offset = np.rint(to_world[:2, 2])
        if np.allclose(to_world, affine.translation(offset.tolist()), atol=1e-6):
            place = window.shift(offset.astype(int).tolist())
            inside = place & box
            if inside:
                out[inside.slices_in(box)] = pixels[inside.slices_in(place)]
            return out
        local = affine.translation([-float(v) for v in window.start]) @ inverse
        local = local @ affine.translation([float(v) for v in box.start])
        swapped = local[[1, 0]][:, [1, 0, 2]]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            pixels, swapped, box.shape[::-1], out, flags=flags, borderValue=float("nan")
        )

    def source_pixels(
        self, source: TileSource, box: Box
    ) -> tuple[Pixels, Bool[np.ndarray, "y x"] | None]:
        """The pixels of a box of a section, and which are known; None for all."""
        pixels = self._tiles.pixels(source, self._settings.channel, box)
        known = self._tiles.mask(source, box)
        for rule in self._settings.exclusions:
            kept = ~self._excluded(source, box, rule)
            known = kept if known is None else known & kept
        return pixels, known

    @property
    def cuts(self) -> bool:
        """Whether there may be pixels at which a mesh is cut."""
        return any(rule.cuts for rule in self._settings.exclusions)

    def cracks(self, source: TileSource, box: Box) -> Bool[np.ndarray, "y x"]:
        """The pixels of a box of a section at which its mesh is cut."""
        found = np.zeros(box.shape, bool)
        for rule in self._settings.exclusions:
            if rule.cuts:
                found |= self._excluded(source, box, rule)
        return found

    def _grey_range(self, source: TileSource) -> Range:
        """Of a section's known pixels; see `sampled_range`."""
        return sampled_range(functools.partial(self._known, source, 1), source.shape)

    def _excluded(self, source: TileSource, box: Box, rule: Exclusion) -> Bool[np.ndarray, "y x"]:
        around = box.pad((rule.grow, rule.grow)) & Box.of_shape(source.shape)
        found = excluded(self._tiles.pixels(source, rule.channel, around), rule)
        return found[box.slices_in(around)]

    def _known(self, source: TileSource, scale: int, window: Box) -> Image:
        if scale == 1:
            pixels, known = self.source_pixels(source, window)
        else:
            stored = self._reduced(scale)
            pixels, known = stored.read(source.row, 0, window), None
            if source.mask is not None or self._settings.exclusions:
                known = stored.read(source.row, _MASK, window) > 0
        return with_nan(pixels, known)


def _at_scale(matrix: affine.Matrix, scale: int) -> affine.Matrix:
    """A matrix between full images as one between reduced images."""
    up = np.diag([scale, scale, 1.0])
    up[:2, 2] = (scale - 1) / 2
    return np.linalg.inv(up) @ matrix @ up


def reduced_sections(run: RunFolder, reduced: Ledger) -> Iterator[TileSource]:
    """The sections that the stage `reduce` could read."""
    done = reduced.marks()
    return (source for source in load_sources(run) if source.key in done)


def placed_sections(run: RunFolder, readable: Readable) -> dict[int, PlacedTile]:
    """The placed sections whose pixels can be had, by number, ascending."""
    there = {source.key for source in readable()}
    found = {p.source.key.section: p for p in load_placement(run) if p.source.key in there}
    return dict(sorted(found.items()))


def earlier(
    there: dict[int, PlacedTile], section: int, gaps: Sequence[int]
) -> list[tuple[int, PlacedTile]]:
    """The sections so far before one that are there, each with the index of its gap."""
    return [(i, there[section - gap]) for i, gap in enumerate(gaps) if section - gap in there]


def list_reductions(run: RunFolder, converted: Ledger) -> Iterator[Unit]:
    """A unit per section whose pixels can be had."""
    for source in usable(run, converted):
        yield source.key, [source]
