"""Throughput and memory of the whole `align` job on large sections.

    python tests/benchmarks/align_speed.py [FOLDER] --size 4096 --sections 8 --json

FOLDER holds a few neighbouring sections as images; without it texture is made. Each is repeated to
the wanted size by reflection, bent by a smooth warp and a drift of its own, and written as a Zarr
volume with chunks of a section. The job runs in a process of its own with one worker; its CPU
seconds are counted from the start of the job (imports are done) to its end, the compilation of
programs apart.

The residual takes the given sections for aligned: what their neighbours are off counts as error.
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

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import align_cases
import conftest  # noqa: F401
import numpy as np
from peak_memory import peak_mb


def repeated(image: np.ndarray, size: int) -> np.ndarray:
    """The image and its mirror images, side by side."""
    row = np.concatenate([image, image[:, ::-1]], axis=1)
    block = np.concatenate([row, row[::-1]])
    times = -(-size // block.shape[0])
    return np.tile(block, (times, times))[:size, :size]


def make(folder: Path | None, size: int, sections: int, target: Path) -> align_cases.Case:
    """Writes the volume; returns its case."""
    import zarr

    if folder is None:
        images = align_cases.synthetic_stack(5, min(size, 1024))
    else:
        images = align_cases.load_stack(folder)
    order = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    stack = np.stack([repeated(images[order[z % len(order)]], size) for z in range(sections)])
    case = align_cases.sheared(stack, amplitude=8.0)
    array = zarr.create_array(
        target, shape=stack.shape, chunks=(1, 512, 512), dtype="uint8",
        compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=1),
    )  # fmt: skip
    array[:] = case.sections
    return case


def job(source: Path, output: Path, settings: str) -> dict[str, Any]:
    """One run; CPU and wall seconds, and the peak memory of the process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from warpbeam.pipelines import align
    from warpbeam.pipelines.align_config import AlignConfig
    from warpbeam.transforms.process import set_up_jax

    set_up_jax()
    values = {"sections": str(source), "output": str(output), **json.loads(settings)}
    values["run"] = {"workers": 1, "report": False, **values.get("run", {})}
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = align.run(AlignConfig.model_validate(values))
    if outcome.failures:
        raise SystemExit(f"failed: {outcome.failures[:3]}")
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": round(peak_mb()),
        "megapixels": outcome.numbers["megavoxels"],
    }


def in_own_process(source: Path, output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", str(source), str(output), json.dumps(settings)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def residual(case: align_cases.Case, output: Path) -> dict[str, float]:
    """Neighbours of the result against the truth, px."""
    from warpbeam.kernels.maps.points import warp_points
    from warpbeam.transforms.storage import displacements, store

    size = case.sections.shape[1]
    axis = np.arange(100.0, size - 100, 97.0)
    at = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    field = displacements.load(str(output / "maps" / "forward.zarr"))
    matrices = store.read_json(str(output / "transforms.json"))

    def forward(z: int, points: np.ndarray) -> np.ndarray:
        matrix = np.array(matrices[f"0/{z}/z{z}"]["matrix"])
        world = points.reshape(2, -1).T @ matrix[:2, :2].T + matrix[:2, 2]
        return warp_points(field.read(z), world).T.reshape(points.shape)

    known = align_cases.score(case, at, forward).residual
    return {"median": float(np.median(known)), "p95": float(np.quantile(known, 0.95))}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = make(arguments.folder, arguments.size, arguments.sections, folder / "in.zarr")
        settings = {"preset": arguments.preset, **json.loads(arguments.settings)}
        in_own_process(folder / "in.zarr", folder / "warm", settings)  # compiles
        found = in_own_process(folder / "in.zarr", folder / "out", settings)
        apart = residual(case, folder / "out")
    whole = arguments.sections * arguments.size**2 / 1e6
    return {
        **{k: round(v, 2) for k, v in found.items()},
        "source_mpx_per_cpu_s": round(whole / found["cpu_s"], 2),
        "residual_px": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?", help="neighbouring sections as images")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--sections", type=int, default=8)
    parser.add_argument("--preset", default="em_2d_fast")
    parser.add_argument("--settings", default="{}", help="more settings, JSON")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        source, output, settings = arguments.job
        print(json.dumps(job(Path(source), Path(output), settings)))
        return
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
