"""Sections linked through flow, beside plain overlap and OpenCV's DIS flow, on the same phantom.

    python tests/benchmarks/segment_link.py --seeds 0 1 2 --json

The phantom's neurites are known (`tests/helpers/neurites.py`). A link is right if both ends show
one neurite; recall counts the neurites that two neighbouring sections both show. All three ways
link by the same rule; DIS and plain overlap have the threshold of the published comparison, 0.3.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import cv2
import numpy as np
from neurites import Neurites, neurites

from warpbeam.kernels.flow.field import FlowSettings
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, identity, on_lattice
from warpbeam.kernels.segment.link import mutual_best, overlap_table
from warpbeam.kernels.segment.metrics import agreement
from warpbeam.kernels.segment.section_map import section_map
from warpbeam.kernels.segment.union import forest, roots_of
from warpbeam.kernels.warp.labels import warp_labels
from warpbeam.kernels.warp.source import Source
from warpbeam.pipelines.volume_config import LinkConfig
from warpbeam.transforms.process import set_up_jax

Mapping = Callable[[np.ndarray, np.ndarray], CoordinateMap]
SECTION = np.uint64(32)


def _plain(first: np.ndarray, second: np.ndarray) -> CoordinateMap:
    return identity(Lattice.covering(Box.of_shape(first.shape), (20, 20)))


def _dis(first: np.ndarray, second: np.ndarray) -> CoordinateMap:
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    lattice = Lattice((0.0, 0.0), (1.0, 1.0), first.shape)
    return on_lattice(flow[..., ::-1].transpose(2, 0, 1), lattice)


def through_flow(first: np.ndarray, second: np.ndarray) -> CoordinateMap:
    """The map between two sections with the settings of the job."""
    chosen = LinkConfig()
    sides = (chosen.patch_px, chosen.stride_px, chosen.search_px)
    patch, stride, search = ((n, n) for n in sides)
    return section_map(first, second, FlowSettings(patch, stride, search, steps=chosen.steps))


def measure(stack: Neurites, mapping: Mapping, least_iou: float) -> dict[str, float]:
    right = found = there = 0
    edges, seconds = [np.zeros((0, 2), np.uint64)], 0.0
    box = Box.of_shape(stack.truth.shape[1:])
    for z in range(len(stack.truth) - 1):
        began = time.process_time()
        m = mapping(*stack.images[z : z + 2])
        seconds += time.process_time() - began
        a, b = stack.truth[z : z + 2]
        table = overlap_table(a, warp_labels(Source.whole(b), m, box))
        linked = table.take(mutual_best(table, least_iou))
        right += int((linked.first == linked.second).sum())
        found += len(linked.first)
        there += np.intersect1d(a[a > 0], b[b > 0]).size
        edges.append(np.stack([_id(linked.first, z), _id(linked.second, z + 1)], axis=1))
    ids = np.stack([np.where(s > 0, _id(s, z), 0) for z, s in enumerate(stack.truth)])
    joined = roots_of(ids.ravel(), forest(np.concatenate(edges))).reshape(ids.shape)
    scores = agreement(stack.truth, joined)
    return {
        "precision": round(right / found, 4),
        "recall": round(right / there, 4),
        "rand_error": round(scores.rand_error, 4),
        "vi_bits": round(scores.split + scores.merge, 3),
        "cpu_ms_per_pair": round(1000 * seconds / (len(stack.truth) - 1), 1),
    }


def _id(labels: np.ndarray, z: int) -> np.ndarray:
    return (np.uint64(z + 1) << SECTION) | labels.astype(np.uint64)


def run(seeds: list[int], jitter: str, depth: int) -> dict[str, Any]:
    set_up_jax()
    cv2.setNumThreads(1)
    rows: dict[str, list[dict[str, float]]] = {"plain": [], "dis": [], "warpbeam": []}
    for seed in seeds:
        stack = neurites(jitter, depth=depth, seed=seed)
        own = LinkConfig().least_iou
        for name, mapping, least in (
            ("plain", _plain, 0.3), ("dis", _dis, 0.3), ("warpbeam", through_flow, own)
        ):  # fmt: skip
            rows[name].append(measure(stack, mapping, least))
    mean = {
        name: {key: round(float(np.mean([row[key] for row in found])), 4) for key in found[0]}
        for name, found in rows.items()
    }
    return {"jitter": jitter, "seeds": seeds, "mean": mean, "each": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jitter", choices=("none", "shift", "elastic"), default="elastic")
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments.seeds, arguments.jitter, arguments.depth)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
