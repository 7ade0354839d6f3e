"""What `segment` will do and need, and what it measured."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from warpbeam.pipelines import estimate
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.transforms.storage.plate import Plate

# Rough figures for one core, after tests/benchmarks/segment_plate.py. That of cellpose was not
# measured: 300 million weights take 0.7 TFLOP for 256 x 256 px, of which tiles share a third, and
# a core does 50 GFLOP/s.
_PIXELS_PER_S = {"local": 12e6, "sauvola": 7e6, "cellpose": 3e3}
_PIXELS_PER_S_OTHERWISE = 100e6
# Two copies of those weights while they are loaded, and what it holds of eight tiles; not measured.
_NETWORK_BYTES = 3_000_000_000
_SPLIT_PIXELS_PER_S = 20e6
_ZARR_PIXELS_PER_S = 40e6
_ROWS_PER_S = 40_000
# Objects of a cell culture, of about 20 px, where nothing is known yet.
_PIXELS_PER_OBJECT = 8000


def plan(plate: Plate, config: SegmentConfig) -> Plan:
    """The stages, from the shapes of the images."""
    size = np.dtype(plate.dtype).itemsize
    pixels = sum(math.prod(site.shape) for site in plate.sites)
    images = sum(math.prod(site.shape) * len(site.images) for site in plate.sites)
    largest = max(math.prod(site.shape) for site in plate.sites)
    channels = max(len(site.images) for site in plate.sites)
    network = config.threshold.method == "cellpose"
    splits = bool(config.objects.neck) and not network
    rate = _PIXELS_PER_S.get(config.threshold.method, _PIXELS_PER_S_OTHERWISE)
    seconds = pixels / rate + (pixels / _SPLIT_PIXELS_PER_S if splits else 0)
    written = pixels // 20
    if config.masks.ome_zarr:
        seconds += images / _ZARR_PIXELS_PER_S
        written += (images * size + 4 * pixels) * 4 // 3
    # All channels, masks and smoothed copies; labels as int64 and distances where it is cut.
    memory = largest * (size * channels + 12 + (24 if splits else 0))
    if network:  # which holds the image, its flow in and out, and where each pixel flows to
        memory += _NETWORK_BYTES + 60 * largest
    stages = [StagePlan("segment", len(plate), images * size, written, memory, seconds)]
    if config.background.correct != "none":
        groups: dict[tuple[Any, ...], int] = {}
        for site in plate.sites:
            key = site.key[:3]
            groups[key] = groups.get(key, 0) + math.prod(site.shape)
        most = max(groups.values())
        stages.insert(0, StagePlan("background", len(groups) * channels, images * size, 0,
                                   (3 * size + 8) * most, images / 20e6))  # fmt: skip
    if config.track.enabled and len({site.key.timepoint for site in plate.sites}) > 1:
        found = pixels // _PIXELS_PER_OBJECT
        wells = len({site.key[:2] for site in plate.sites})
        stages.append(StagePlan("track", wells, 0, 0, 3000 * found // wells, found / 2e4))
    rows = pixels // _PIXELS_PER_OBJECT * (1 + channels)
    stages += [
        StagePlan("database", len(plate), 0, 0, 0, rows / _ROWS_PER_S),
        StagePlan("tables", 1, 0, 100 * rows, 300 * rows, rows / 1e6),
    ]
    what = (
        f"{len(plate)} sites of {' x '.join(map(str, plate.sites[0].shape))} {plate.dtype}, "
        f"{len({s.key[:2] for s in plate.sites})} wells, channels {', '.join(plate.channels)}",
    )
    return Plan(tuple(stages), estimate.BASE_MEMORY, what)


def numbers(graph: JobGraph, plate: Plate, seconds: float) -> dict[str, Any]:
    """Objects and rows of all sites that are done."""
    stages = {stage.name: stage.ledger for stage in graph.stages}
    if "segment" not in stages:
        return {"figures": len(stages["tryall"].records())}
    records = [record for _, record in stages["segment"].records()]
    counts = [record["objects"] for record in records]
    found = {
        "sites": len(records),
        "objects": sum(counts),
        "objects_per_site": float(statistics.median(counts)) if counts else 0.0,
        "empty_sites": sum(n == 0 for n in counts),
    }
    if any(record["puncta"] for record in records):
        found["puncta"] = sum(record["puncta"] for record in records)
    if "track" in stages:
        found["cells"] = sum(record["cells"] for _, record in stages["track"].records())
    if "database" in stages:
        found["rows"] = sum(record["rows"] for _, record in stages["database"].records())
    pixels = sum(math.prod(site.shape) for site in plate.sites)
    return {**found, "megapixels_per_second": pixels / 1e6 / seconds}
