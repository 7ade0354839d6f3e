"""`segment` on a volume: speed, memory, and whether blocks give the labels of the whole.

    python tests/benchmarks/segment_volume.py --json

The volume holds crooked threads, most of which cross many blocks, and is written as an OME-Zarr.
The job runs whole with one worker, in a process of its own (imports and report not counted), for
each size. `scipy` is `ndimage.label` on the whole volume in memory with the same threshold, the
reading of it included: what one would do without blocks. The last size is compared with it, as a
partition.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
from peak_memory import peak_mb
from running import environment
from solids import grey_of, same_partition, threads

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.volume_spec import VolumeSpec, choose_levels

LEVEL = 750
BLOCK = (1, 1, 32, 128, 128)


def write(uri: str, side: int) -> np.ndarray:
    """A volume of that side, made of copies of one piece that go on in one another."""
    part = min(side, 128)
    grey = grey_of(threads(shape=(part, part, part)))
    mirrored = np.pad(grey, [(0, side - part)] * 3, mode="symmetric")
    shape = (1, 1, *mirrored.shape)
    factors = choose_levels(shape, BLOCK, (1.0, 1.0, 1.0))
    made = volume.create(VolumeSpec(uri, shape, "uint16", BLOCK, BLOCK, factors=factors))
    level = made.level(0)
    for box in map(level.shard_grid.box, level.shard_grid.indices()):
        level.write_shards(box, np.ascontiguousarray(mirrored[None, None][box.slices]))
    return mirrored


def job(image: str, output: str, *, cut: bool) -> dict[str, float]:
    """The whole job in this process, imports not counted."""
    from warpbeam.pipelines import segment_volume
    from warpbeam.pipelines.volume_config import SegmentVolumeConfig

    before = time.process_time()
    outcome = segment_volume.run(SegmentVolumeConfig(
        image=image, output=output, threshold={"method": "manual", "manual": LEVEL},
        watershed={"enabled": cut, "smoothing_um": 1.0},
        volume={"chunk_3d": (32, 64, 64), "shard_3d": (32, 128, 128)},
        labels={"with_image": False}, run={"workers": 1, "report": False},
    ))  # fmt: skip
    return {
        "cpu_s": time.process_time() - before,
        "objects": outcome.numbers["objects"],
        "edges": outcome.numbers["edges"],
        "blocks": outcome.numbers["blocks"],
        "peak_mb": peak_mb(),
    }


def in_own_process(image: str, output: str, *, cut: bool) -> dict[str, float]:
    line = [sys.executable, __file__, "--job", image, output, str(int(cut))]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def whole(image: str) -> tuple[np.ndarray, float]:
    """Labels of the volume in memory, and CPU seconds."""
    from scipy import ndimage

    began = time.process_time()
    level = volume.open_volume(image).level(0)
    pixels = level.read(Box.of_shape(level.shape))[0, 0]
    labels, _ = ndimage.label(pixels > LEVEL)
    return labels, time.process_time() - began


def run(sides: list[int], cut_side: int) -> dict[str, Any]:
    found: dict[str, Any] = {"sides": sides, "peak_mb": {}, "megavoxels_per_cpu_s": {}}
    with tempfile.TemporaryDirectory() as name:
        for side in sides:
            image, output = f"{name}/{side}.ome.zarr", f"{name}/run{side}"
            write(image, side)
            mine = in_own_process(image, output, cut=False)
            found["peak_mb"][str(side)] = round(mine["peak_mb"])
            found["megavoxels_per_cpu_s"][str(side)] = round(side**3 / 1e6 / mine["cpu_s"], 2)
        labels = volume.open_volume(f"{output}/volume.ome.zarr/labels/objects").level(0)
        expected, scipy_s = whole(image)
        found |= {
            "objects": mine["objects"],
            "edges": mine["edges"],
            "blocks": mine["blocks"],
            "scipy_megavoxels_per_cpu_s": round(sides[-1] ** 3 / 1e6 / scipy_s, 2),
            "same_partition": same_partition(
                labels.read(Box.of_shape(labels.shape))[0, 0], expected
            ),
        }
        image = f"{name}/cut.ome.zarr"
        write(image, cut_side)
        cut = in_own_process(image, f"{name}/cut", cut=True)
        found["watershed_megavoxels_per_cpu_s"] = round(cut_side**3 / 1e6 / cut["cpu_s"], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256, 384])
    parser.add_argument("--cut-side", type=int, default=160, help="of the one with a watershed")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        image, output, cut = arguments.job
        print(json.dumps(job(image, output, cut=cut == "1")))
        return
    result = run(arguments.sides, arguments.cut_side)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
