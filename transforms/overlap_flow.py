"""Neighbouring tiles are compared point by point where they overlap: a unit per link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.convert import usable
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.shading import ShadingReader, load_image, save_image, shading_fingerprint
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, key_name
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileReader, TileSource

Array = np.ndarray[Any, Any]

# On all axes but one, an overlap has at least this part of the smaller tile: what tiles share at
# their corners only, their other neighbours show as well.
_FACE = 0.5


@dataclass(frozen=True)
class OverlapSettings:
    """How overlaps are compared; lengths in voxels, array order.

    Attributes:
        channel: index of the channel.
        patch, stride, search: see `kernels.flow.field.FlowSettings`; the stride is that of the
            meshes too.
        finest: level of the mean pyramid on which vectors are refined last.
        min_peak_ratio, min_sharpness, max_magnitude: of a believed vector, see
            `kernels.flow.clean`.
    """

    channel: int
    patch: tuple[int, ...]
    stride: tuple[int, ...]
    search: tuple[int, ...]
    finest: int
    min_peak_ratio: float
    min_sharpness: float | None = None
    max_magnitude: float | None = None


def list_overlaps(run: RunFolder, converted: Ledger) -> Iterator[Unit]:
    """A unit per link that the solve kept, where the tiles share a face."""
    there = {source.key for source in usable(run, converted)}
    placed = {p.source.key: p for p in load_placement(run) if p.source.key in there}
    shading = shading_fingerprint(run, "flat", "dark")
    for row in tables.read(run.table("links")):
        keys = [TileKey(row["time"], row["section"], row[name]) for name in ("tile_a", "tile_b")]
        if row["kept"] and all(key in placed for key in keys):
            a, b = (placed[key] for key in keys)
            if _share_a_face(a, b):
                yield (*keys[0], keys[1].tile), (a, b, shading)


def _share_a_face(a: PlacedTile, b: PlacedTile) -> bool:
    boxes = [
        affine.bounding_box(affine.homogeneous(p.matrix), Box.of_shape(p.source.shape))
        for p in (a, b)
    ]
    common = (boxes[0] & boxes[1]).shape
    smaller = np.minimum(boxes[0].shape, boxes[1].shape)
    return bool(np.count_nonzero(np.array(common) < _FACE * smaller) <= 1)


class MeasureOverlap:
    """Work of the stage `flow`: the points of two tiles that show the same.

    Payload: both placed tiles, a fingerprint of the shading. The points are stored beside the
    ledger, see `load_points`; the record counts them.
    """

    def __init__(self, run: RunFolder, settings: OverlapSettings) -> None:
        self._run, self._settings = run, settings

    def setup(self) -> None:
        set_up_jax()
        self._tiles = TileReader(self._run)
        self._shading = ShadingReader(self._run, with_gains=False)

    def __call__(self, key: Key, payload: Any) -> Record:
        # Imported where it is needed: JAX takes a second.
        from warpbeam.kernels.flow.clean import CleanSettings
        from warpbeam.kernels.flow.field import FlowSettings
        from warpbeam.kernels.flow.overlap import match_overlap, overlap

        a, b, _ = payload
        chosen = self._settings
        flow = FlowSettings(chosen.patch, chosen.stride, chosen.search, finest=chosen.finest)
        matrices = [affine.homogeneous(placed.matrix) for placed in (a, b)]
        between = np.linalg.inv(matrices[1]) @ matrices[0]
        found = overlap((a.source.shape, b.source.shape), between, flow)
        if found is None:
            return {"nodes": 0, "points": 0, "reason": "the tiles do not overlap"}
        try:
            parts = [self._read(a.source, found.fixed), self._read(b.source, found.moving)]
        except CorruptImageError as problem:
            return {"nodes": 0, "points": 0, "reason": f"{problem.what}: {problem.where}"}
        clean = CleanSettings(
            chosen.min_peak_ratio, chosen.min_sharpness, max_magnitude=chosen.max_magnitude
        )
        matched = match_overlap(found, parts[0], parts[1], flow, clean)
        columns = np.concatenate([matched.p, matched.q - matched.p], axis=1).astype(np.float32)
        save_image(self._run.points(key_name(key)), columns)
        return {
            "bytes_read": sum(values.nbytes for values, _ in parts),
            "bytes_written": columns.nbytes,
            "nodes": matched.nodes,
            "points": len(columns),
            "reason": "",
        }

    def _read(self, source: TileSource, box: Box) -> tuple[Array, Array | None]:
        """Float32 values of the compared channel and which of them are valid."""
        pixels = self._tiles.pixels(source, self._settings.channel, box)
        shading = self._shading.of(source.key, self._settings.channel)
        mask = self._tiles.mask(source, box)
        return shading.correct(pixels, box), None if mask is None else mask.astype(bool)


def load_points(run: RunFolder, key: Key) -> tuple[Array, Array]:
    """Points of the first tile and of the second one, one per row, float64.

    Raises:
        FileNotFoundError: the stage `flow` has not stored them.
    """
    columns = load_image(run.points(key_name(key)))
    if columns is None:
        raise FileNotFoundError(f"the points of {key} are gone: {run.points(key_name(key))}")
    p, apart = np.split(columns.astype(np.float64), 2, axis=1)
    return p, p + apart
