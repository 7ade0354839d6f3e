"""How many objects are found: F1 at IoU 0.5, on a synthetic plate and on images of nuclei.

    python tests/benchmarks/segment_f1.py [FOLDER] --json

FOLDER holds images NAME.png with hand-made labels NAME_labels.tif (such as the nuclei of the Data
Science Bowl 2018). Each is segmented by whole presets of the job, and by otsu alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
import plate_cases
import tifffile

from warpbeam.kernels.segment.metrics import Matches, matches
from warpbeam.kernels.segment.plate import ObjectSettings, find_objects
from warpbeam.pipelines.segment_config import SegmentConfig, object_settings
from warpbeam.transforms.storage.images import ImageRef, read

CASES: dict[str, dict[str, Any]] = {
    "otsu": {},
    "otsu_cut": {"objects": {"neck": 0.8}},
    "nuclei": {"preset": "nuclei"},
}


def settings(**given: Any) -> ObjectSettings:
    """As the job would have them."""
    return object_settings(SegmentConfig(plate="", output="", **given))


def score(images: list[tuple[np.ndarray, np.ndarray]], chosen: ObjectSettings) -> dict[str, float]:
    """F1 over all objects, and the mean over the images."""
    each = [matches(truth, find_objects(image, chosen).image(), 0.5) for image, truth in images]
    total = sum(each, Matches(0, 0, 0))
    mean = float(np.mean([match.f1 for match in each]))
    return {"f1": round(total.f1, 3), "mean_of_images": round(mean, 3), "objects": total.truth}


def plate(tiles: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tiles with their truth; what is smaller than an object may be is no truth."""
    for _, _, seed, position in plate_cases.positions(tiles, 1, size):
        image, truth = position.draw(0, seed)
        areas = np.bincount(truth.ravel())
        yield image, truth * (areas > 50)[truth]


def folder_of(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for file in sorted(path.glob("*.png")):
        yield read(ImageRef(str(file))), tifffile.imread(file.with_name(f"{file.stem}_labels.tif"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?", help="images with labels")
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    sets = {"plate": list(plate(arguments.tiles, arguments.size))}
    if arguments.folder is not None:
        sets["images"] = list(folder_of(arguments.folder))
    result = {
        name: {case: score(images, settings(**given)) for case, given in CASES.items()}
        for name, images in sets.items()
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
