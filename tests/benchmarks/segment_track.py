"""How many cells keep their number from one time to the next, on a synthetic plate.

    python tests/benchmarks/segment_track.py --json

Cells of a position are shifted together by up to 12 px, and each by itself by 4 px (standard
deviation). A cell counts where it was found at both times (the object that overlaps it most, and
whose largest part it is); it is correct if both objects have one number. Beside it the nearest
neighbour within the same reach, without a common shift, which gives numbers twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
import plate_cases
from scipy.spatial import cKDTree

from warpbeam.kernels.segment.intensity import intensity_properties
from warpbeam.kernels.segment.metrics import overlaps
from warpbeam.kernels.segment.plate import find_objects
from warpbeam.kernels.segment.shape import shape_properties
from warpbeam.kernels.segment.track import TrackSettings, identities
from warpbeam.pipelines.segment_config import SegmentConfig, TrackConfig, object_settings
from warpbeam.transforms.segment.track import cells_of


def owners(truth: np.ndarray, found: np.ndarray) -> dict[int, int]:
    """Object (from 0) of each cell, where each is the other's largest part."""
    a, b, shared = overlaps(truth, found)
    order = np.argsort(shared, kind="stable")
    largest_of_cell = dict(zip(a[order].tolist(), b[order].tolist(), strict=True))
    largest_of_object = dict(zip(b[order].tolist(), a[order].tolist(), strict=True))
    return {c: o - 1 for c, o in largest_of_cell.items() if largest_of_object[o] == c}


def nearest(times: list[np.ndarray], reach: float) -> list[np.ndarray]:
    """Each object takes the number of the nearest one before."""
    found = [np.arange(1, len(times[0]) + 1)]
    for before, after in itertools.pairwise(times):
        distance, at = cKDTree(before).query(after)
        new = found[-1].max() + np.arange(1, len(after) + 1)
        found.append(np.where(distance <= reach, found[-1][np.minimum(at, len(before) - 1)], new))
    return found


def run(tiles: int, times: int, size: int, preset: str) -> dict[str, object]:
    chosen = object_settings(SegmentConfig(plate="", output="", preset=preset))
    reach = TrackConfig()
    settings = TrackSettings(reach.shift_px, reach.step_px, reach.trait_px)
    counts = {"hungarian": np.zeros(3, int), "nearest": np.zeros(3, int)}
    for _, _, seed, position in plate_cases.positions(tiles, times, size):
        found, cells = [], []
        for time in range(times):
            image, truth = position.draw(time, seed)
            regions = find_objects(image, chosen)
            grey = intensity_properties(regions, image)["intensity_mean"]
            found.append(cells_of(shape_properties(regions), grey))
            cells.append(owners(truth, regions.image()))
        numbers = {
            "hungarian": identities(found, settings),
            "nearest": nearest([each.at for each in found], reach.step_px),
        }
        for name, own in numbers.items():
            for k in range(1, times):
                both = cells[k - 1].keys() & cells[k].keys()
                same = sum(own[k - 1][cells[k - 1][c]] == own[k][cells[k][c]] for c in both)
                twice = own[k].size - np.unique(own[k]).size
                counts[name] += (len(both), same, twice)
    return {
        name: {"cells": int(n), "correct": round(float(same / n), 4), "numbers_twice": int(twice)}
        for name, (n, same, twice) in counts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    given = (arguments.tiles, arguments.times, arguments.size)
    result = {preset: run(*given, preset) for preset in ("cells", "nuclei")}
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
