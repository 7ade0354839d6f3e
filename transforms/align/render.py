"""Sections and their maps -> whole shards of the aligned volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_absolute
from warpbeam.kernels.maps.rescale import rescale
from warpbeam.kernels.shading.contrast import Contrast
from warpbeam.kernels.warp.image import needed, warp_image
from warpbeam.kernels.warp.source import Source
from warpbeam.transforms.align.frame import load_frame
from warpbeam.transforms.align.pixels import SectionPixels
from warpbeam.transforms.align.section_maps import load_inverse
from warpbeam.transforms.canvas import Canvas, load_canvas
from warpbeam.transforms.convert import usable
from warpbeam.transforms.drawn import brightness, drawn, sampled
from warpbeam.transforms.keys import ShardKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.reach import nodes_around, seen_by
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.images import CorruptImageError, together
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RenderSettings:
    """How sections are drawn; see `kernels.warp.image`.

    Attributes:
        interpolation: one of `warp.image.INTERPOLATIONS`.
        background: grey value where there is no section.
        scale: pixels of the sections, and of the volume, along one of those that were aligned.
        contrast: how it is evened out first, see `kernels.shading.contrast`.
        contrast_px: size of its neighbourhoods.
    """

    interpolation: str
    background: float
    scale: float = 1
    contrast: Contrast = "none"
    contrast_px: int = 256


def list_renders(run: RunFolder, inverted: Ledger) -> Iterator[Unit]:
    """A unit per level-0 shard.

    Payload: fingerprints of the maps of its sections, the shape of the volume, its sections.
    """
    canvas = load_canvas(run)
    marks = {
        section: mark for _, record in inverted.records() for section, mark in record["sections"]
    }
    placed = {p.source.key.section: p for p in load_placement(run) if p.source.key.section in marks}
    return _units(canvas, placed, marks)


def list_applied(run: RunFolder, maps: RunFolder, mark: str, converted: Ledger) -> Iterator[Unit]:
    """A unit per level-0 shard of other sections in the place of those of the run `maps`.

    Payload: as of `list_renders`, with `mark` for the maps of all sections.
    """
    matrices = {p.source.key.section: p.matrix for p in load_placement(maps)}
    placed = {
        source.key.section: PlacedTile(source, matrices[source.key.section])
        for source in usable(run, converted)
        if source.key.section in matrices
    }
    return _units(load_canvas(run), placed, dict.fromkeys(placed, mark))


def _units(canvas: Canvas, placed: dict[int, PlacedTile], marks: dict[int, str]) -> Iterator[Unit]:
    first = canvas.origin[0]
    for block in canvas.grid.indices():
        box = canvas.grid.box(block)
        inside = [
            placed[first + z] for z in range(box.start[2], box.stop[2]) if first + z in placed
        ]
        drawn = [marks[p.source.key.section] for p in inside]
        yield ShardKey(0, block), [drawn, canvas.shape, inside]


class RenderShard:
    """Work of the stage `render`: one whole level-0 shard and the levels inside it.

    Where a section is corrupt its plane stays empty, and the unit fails once it is written. The
    maps may be those of another run (`maps`), whose sections lay in the same place.
    """

    def __init__(
        self, run: RunFolder, settings: RenderSettings, maps: RunFolder | None = None
    ) -> None:
        self._run, self._settings, self._maps = run, settings, maps or run

    def setup(self) -> None:
        given = self._settings
        self._pixels = SectionPixels(self._run, given.background, given.contrast, given.contrast_px)

    def __call__(self, key: ShardKey, payload: Any) -> Record:
        *_, sections = payload
        frame, canvas = load_frame(self._maps), load_canvas(self._run)
        aligned = canvas if self._maps is self._run else load_canvas(self._maps)
        target, inverse = volume.open_volume(self._run.volume), load_inverse(self._maps)
        box = canvas.grid.box(key.block)
        values = np.full(box.shape, self._settings.background, target.level(0).dtype)
        plane, whole = Box(box.start[3:], box.stop[3:]), Box.of_shape(canvas.shape[3:])
        read, covered, corrupt, samples = 0, 0, [], []
        for placed in sections:
            z = frame.z(placed.source.key.section)
            m = _source_map(inverse, placed, z, plane, aligned.origin[1:], self._settings.scale)
            if m is None:
                continue
            out = values[0, :, z - box.start[2]]
            try:
                for channel in range(box.start[1], box.stop[1]):
                    read += self._draw(
                        out[channel - box.start[1]], placed, channel, m, plane, whole
                    )
            except CorruptImageError as problem:
                corrupt.append(problem)
                continue
            seen = seen_by(m, placed.source.shape, plane)
            covered += round(float(seen.mean()) * plane.size) * len(out)
            samples.append(out[:, *sampled(plane.shape)][:, seen])
        written = target.write_with_levels(box, values)
        if corrupt:
            raise together(corrupt)
        grey = np.concatenate(samples, axis=1) if samples else np.empty((box.shape[1], 0))
        quantiles = [brightness(part) for part in grey]
        return drawn(box, read=read, written=written, covered=covered, quantiles=quantiles)

    def _draw(
        self,
        out: Pixels,
        placed: PlacedTile,
        channel: int,
        m: CoordinateMap,
        plane: Box,
        whole: Box,
    ) -> int:
        """One channel of one section on a part of a whole plane; returns the bytes read."""
        source, how = placed.source, self._settings.interpolation
        extent = Box.of_shape(source.shape)
        window = needed(m, plane, extent, how, bounds=whole)
        if not window:
            return 0
        pixels = self._pixels.read(source, channel, window)
        loaded = Source(pixels, window, extent)
        out[...] = warp_image(
            loaded, m, plane, how, background=self._settings.background, bounds=whole
        )
        return int(pixels.nbytes)


def _source_map(
    inverse: DisplacementField,
    placed: PlacedTile,
    z: int,
    plane: Box,
    origin: Sequence[int],
    scale: float,
) -> CoordinateMap | None:
    """From output voxels to a section's own, on the nodes around a plane; None where unknown.

    Between nodes a map is bilinear, and so it stays behind an affine matrix. The stored map is
    one between voxels that are `scale` times as large, of which voxel 0 lies at `origin` of the
    aligned frame.
    """
    voxel, back = 1 / scale, [-o for o in origin]
    m = inverse.read(z, nodes_around(inverse.lattice.shift(back).at_scale(voxel), plane))
    if not m.known.any():
        return None
    to_source = np.linalg.inv(affine.homogeneous(placed.matrix))
    to_pixels = from_absolute(then_matrix(m, to_source).absolute, m.lattice.shift(back))
    return rescale(to_pixels, (voxel, voxel), (voxel, voxel))
