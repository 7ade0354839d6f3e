"""Over-segmented images, agglomerated: a phantom in 2-D pieces, and a real volume from grey alone.

    python tests/benchmarks/segment_agglomerate.py --seeds 0 1 2 --json
    python tests/benchmarks/segment_agglomerate.py --gray FOLDER --truth bodies.tif --json

Phantom: every section is cut by a watershed, its pieces are linked to those of the next section
through flow, with and without joining pieces of a section first. Real volume (dark membranes): a
watershed on a boundary map out of the grey values, then agglomeration, for several thresholds, and
the job `segment` with `pieces.enabled` in blocks; the variation of information is in bits.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
from neurites import Neurites, neurites
from segment_link import through_flow
from solids import write_image

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.agglomerate import agglomerate, contacts
from warpbeam.kernels.segment.catchment import catchments
from warpbeam.kernels.segment.link import mutual_best, overlap_table
from warpbeam.kernels.segment.metrics import Agreement, agreement
from warpbeam.kernels.segment.sheets import traces, weights
from warpbeam.kernels.segment.union import forest, roots_of
from warpbeam.kernels.warp.labels import warp_labels
from warpbeam.kernels.warp.source import Source
from warpbeam.pipelines import segment_volume
from warpbeam.pipelines.config import VolumeConfig
from warpbeam.pipelines.volume_config import LinkConfig, PiecesConfig, SegmentVolumeConfig
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.segment.volume.pieces import PIECE_SIGMAS
from warpbeam.transforms.storage import volume

PIECES = PiecesConfig()


def evidence_of(grey: np.ndarray) -> np.ndarray:
    found = traces(grey, (PIECES.sheet_px[0],) * grey.ndim, dark=PIECES.sheets == "dark")
    return weights([found]).evidence(found)


def cut_along(evidence: np.ndarray) -> np.ndarray:
    sigma = [s * PIECE_SIGMAS for s in PIECES.sheet_px[: evidence.ndim]]
    return catchments(evidence, sigma).astype(np.uint64)


def phantom(stack: Neurites) -> dict[str, float]:
    """The pieces of a section, linked as they are and agglomerated first."""
    whole, joined = [], []
    evidence = [evidence_of(section) for section in stack.images]
    cut = np.stack([cut_along(e) | np.uint64((z + 1) << 32) for z, e in enumerate(evidence)])
    for section, each in zip(cut, evidence, strict=True):
        graph = contacts(section, each)
        joined.append(agglomerate(graph, PIECES.threshold, PIECES.enclosed))
        whole.append(roots_of(section.ravel(), joined[-1]).reshape(section.shape))
    found = {"pieces_per_section": round(len(np.unique(cut)) / len(cut), 1)}
    for name, sections, within in (("linked", list(cut), []), ("agglomerated", whole, joined)):
        edges = forest(np.concatenate([*within, *links(stack, sections)]))
        labels = roots_of(cut.ravel(), edges).reshape(cut.shape)
        found[f"rand_error_{name}"] = round(agreement(stack.truth, labels).rand_error, 4)
    return found


def links(stack: Neurites, sections: list[np.ndarray]) -> Iterator[np.ndarray]:
    box = Box.of_shape(sections[0].shape)
    for z, (first, second) in enumerate(itertools.pairwise(sections)):
        m = through_flow(*stack.images[z : z + 2])
        table = overlap_table(first, warp_labels(Source.whole(second), m, box))
        linked = table.take(mutual_best(table, LinkConfig().least_iou))
        yield np.stack([linked.first, linked.second], axis=1)


def real(gray: Path, truth: Path, thresholds: list[float]) -> dict[str, Any]:
    import imageio.v3
    import tifffile

    grey = np.stack([imageio.v3.imread(file) for file in sorted(gray.glob("*.png"))])
    bodies = tifffile.imread(truth).astype(np.int64)
    began = time.process_time()
    evidence = evidence_of(grey)
    cut = cut_along(evidence)
    graph = contacts(cut, evidence)
    seconds = {"pieces": time.process_time() - began}
    rows = {"pieces": _scores(agreement(bodies, cut.astype(np.int64)))}
    for threshold in thresholds:
        began = time.process_time()
        joined = agglomerate(graph, threshold, PIECES.enclosed)
        seconds["agglomerate"] = time.process_time() - began
        labels = roots_of(cut.ravel(), joined).reshape(cut.shape)
        rows[f"threshold_{threshold}"] = _scores(agreement(bodies, labels.astype(np.int64)))
    labels, seconds["job"] = through_job(grey)
    rows["job"] = _scores(agreement(bodies, labels))
    return {
        "pieces": len(np.unique(cut)),
        "contacts": len(graph.a),
        "cpu_s": {name: round(each, 1) for name, each in seconds.items()},
        "scores": rows,
    }


def through_job(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Labels of the job in blocks of half the volume's sides, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        image = write_image(Path(folder, "image.ome.zarr"), grey, (1.0, 1.0, 1.0))
        config = SegmentVolumeConfig(
            image=str(image), output=f"{folder}/run", pieces=PiecesConfig(enabled=True),
            volume=VolumeConfig(shard_3d=(128,) * 3, chunk_3d=(64,) * 3, pyramid=False),
        )  # fmt: skip
        began = time.process_time()
        segment_volume.run(config)
        seconds = time.process_time() - began
        level = volume.open_volume(f"{folder}/run/volume.ome.zarr/labels/objects").level(0)
        return level.read(Box.of_shape(level.shape))[0, 0].astype(np.int64), seconds


def _scores(found: Agreement) -> dict[str, float]:
    return {
        "vi_bits": round(found.split + found.merge, 3),
        "split": round(found.split, 3),
        "merge": round(found.merge, 3),
        "rand_error": round(found.rand_error, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--gray", type=Path, help="folder of PNG sections of a real volume")
    parser.add_argument("--truth", type=Path, help="TIFF of its bodies")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0, 1.1])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    set_up_jax()
    if arguments.gray:
        result = real(arguments.gray, arguments.truth, arguments.thresholds)
    else:
        rows = [
            phantom(neurites("elastic", depth=arguments.depth, seed=s)) for s in arguments.seeds
        ]
        mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        result = {"seeds": arguments.seeds, "mean": mean, "each": rows}
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
