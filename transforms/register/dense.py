"""Chunks -> dense displacements by an engine, blended at the nodes into the field.

Chunks overlap. Each is drawn through the field so far and registered by itself; its displacement is
kept at the nodes with a weight that falls to its rim. A chunk that the engine should not see, or
makes no better, or on which it fails, leaves its nodes to its neighbours, or to the field so far.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.maps.rescale import rescale
from warpbeam.kernels.register.chunk_engine import ChunkEngine, improved, unfit
from warpbeam.kernels.register.measure import moved_field
from warpbeam.kernels.register.partition import blend, ramp
from warpbeam.kernels.warp.image import needed, warp_image
from warpbeam.kernels.warp.source import Source
from warpbeam.transforms.keys import NodesKey
from warpbeam.transforms.process import set_up_itk, set_up_jax
from warpbeam.transforms.register.chunks import load_field
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import FIXED, MOVING, Frame, dense_uri, field_uri
from warpbeam.transforms.register.reading import VolumeReader, VolumeSettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

CHANNELS = 4  # displacement, weight
_one_at_a_time = threading.Lock()  # ITK keeps its settings per process


class RegisterChunk:
    """Work of the stage `dense`: one chunk and its surroundings."""

    def __init__(
        self,
        run: RunFolder,
        frame: Frame,
        volumes: VolumeSettings,
        engine: ChunkEngine,
        level: int,
    ) -> None:
        self._run, self._frame, self._volumes = run, frame, volumes
        self._engine, self._level = engine, level

    def setup(self) -> None:
        set_up_itk()
        set_up_jax()
        self._reader = VolumeReader(self._run, self._volumes)

    def __call__(self, key: NodesKey, payload: Any) -> Record:
        frame = self._frame
        nodes, region = frame.overlapping(key.block, self._level)
        fixed = self._reader.read(frame, FIXED, self._level, region)
        moving = self._drawn(region)
        why = unfit(fixed, moving)
        values = np.zeros((CHANNELS, *nodes.shape), np.float32)
        said: Record = {}
        if why is None:
            with _one_at_a_time:
                found = improved(fixed, moving, self._engine)
            likeness = {"ncc_before": found.before, "ncc": found.after}
            said = {k: None if math.isnan(v) else v for k, v in likeness.items()}
            said["accuracy"] = found.accuracy
            if found.displacement is None:
                why = "no better than before"
            else:
                values = self._at_nodes(found.displacement, nodes, region)
        array = fields.create(dense_uri(self._run, key.block), values.shape, values.shape)
        written = array.write(Box.of_shape(values.shape), values)
        return {"bytes_read": fixed.nbytes, "bytes_written": written, "left_out": why, **said}

    def _drawn(self, region: Box) -> np.ndarray[Any, Any]:
        """The moving volume on the voxels of a region of the level."""
        frame, level = self._frame, self._level
        field = load_field(self._run, frame, len(frame.passes) - 1)
        total = then_matrix(field, load_coarse(self._run).matrix)
        m = rescale(total, frame.factors(FIXED, level), frame.factors(MOVING, level))
        extent = Box.of_shape(frame.shape(MOVING, level))
        window = needed(m, region, extent)
        if not window:
            return np.full(region.shape, np.nan, np.float32)
        moving = self._reader.read(frame, MOVING, level, window)
        return warp_image(Source(moving, window, extent), m, region, background=float("nan"))

    def _at_nodes(
        self, found: np.ndarray[Any, Any], nodes: Box, region: Box
    ) -> np.ndarray[Any, Any]:
        """Displacement in fixed voxels, and weight, at the chunk's nodes."""
        lattice = self._frame.at_level(self._level)
        start = tuple(map(float, region.start))
        dense = CoordinateMap(found, start, (1.0,) * 3)
        points = lattice.crop(nodes).nodes()
        factors = np.reshape(self._frame.factors(FIXED, self._level), (3, 1, 1, 1))
        values = offsets_at(dense, points, "nearest") * factors
        at = tuple(lattice.along(axis) for axis in range(3))
        overlap = self._frame.overlap / self._level
        weight = ramp(nodes, region, overlap, at)
        return np.concatenate([values, weight[None]]).astype(np.float32)


def one_blend(registered: Ledger) -> Iterator[Unit]:
    """The single unit; changes whenever a chunk was registered anew."""
    yield ("blend",), registered.fingerprint()


class BlendChunks:
    """Work of the stage `blend`: the displacements of all chunks -> the last field."""

    def __init__(
        self, run: RunFolder, frame: Frame, registered: Ledger, level: int, least_jacobian: float
    ) -> None:
        self._run, self._frame, self._registered = run, frame, registered
        self._level, self._least = level, least_jacobian

    def __call__(self, key: Key, payload: Any) -> Record:
        frame, records = self._frame, self._registered.records()
        blended = blend(map(self._part, (k[1] for k, _ in records)), frame.lattice.shape)
        before = load_field(self._run, frame, len(frame.passes) - 1)
        share, offsets = 1.0, before.u
        wanted = np.nan_to_num(blended.offsets)
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            offsets = moved_field(before, share * wanted)
            if jacobian(on_lattice(offsets, frame.lattice)).min() >= self._least:
                break
        whole = Box.of_shape(offsets.shape)
        array = fields.create(field_uri(self._run, frame.last), whole.shape, whole.shape)
        apart = blended.disagreement[np.isfinite(blended.disagreement)]
        return {
            "bytes_written": array.write(whole, offsets),
            "matches": int(np.isfinite(blended.offsets[0]).sum()),
            "rejected": 0,
            "share": share,
            "left_out": sum(record["left_out"] is not None for _, record in records),
            "disagreement_median_px": float(np.median(apart)) if apart.size else None,
            "disagreement_p95_px": float(np.quantile(apart, 0.95)) if apart.size else None,
            "jacobian_least": float(jacobian(on_lattice(offsets, frame.lattice)).min()),
        }

    def _part(
        self, block: tuple[int, ...]
    ) -> tuple[Box, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        nodes, _ = self._frame.overlapping(block, self._level)
        values = fields.load(dense_uri(self._run, block)).read().astype(np.float64)
        return nodes, values[:3], values[3]
