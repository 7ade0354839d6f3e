"""Fusion against its physical limit: a bare cv2.warpAffine + write loop over the same tiles.

    python tests/benchmarks/fusion_speed.py --grid 10 --json
    python tests/benchmarks/fusion_speed.py --grid 20 --job --json

Each part runs in a process of its own, so that peak memory and CPU time are its own. The
loop pastes tiles without weights, coverage, pyramid, resume or checks: nothing that makes
an image of tiles can be faster with the same warp, the same chunks and the same codec.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)

from warpbeam.transforms.heap import bound_heap

bound_heap()  # as the command line does, before the large imports

import numpy as np
from peak_memory import peak_mb, watched_children

SHARD, CHUNK = 2048, 512


def write_tiles(folder: Path, grid: int, side: int) -> None:
    """Noisy uint16 tiles, 10 % overlap, turned by up to 0.3 degrees, jittered by up to 4 px."""
    import tifffile

    rng = np.random.default_rng(0)
    pitch = round(0.9 * side)
    coarse = rng.normal(size=(side // 16, side // 16))
    texture = np.kron(coarse, np.ones((16, 16))) * 3000 + 20000
    with open(folder / "tiles.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "m00", "m01", "m02", "m10", "m11", "m12"])
        for r in range(grid):
            for c in range(grid):
                name = f"tile_{r}_{c}.tif"
                image = np.roll(texture, (37 * r, 53 * c), (0, 1)) + rng.normal(
                    0, 600, (side, side)
                )
                tifffile.imwrite(folder / name, image.clip(0, 65535).astype(np.uint16))
                angle = np.deg2rad(rng.uniform(-0.3, 0.3))
                cos, sin = np.cos(angle), np.sin(angle)
                y, x = np.array([r, c]) * pitch + rng.uniform(-4, 4, 2) + 8
                rows.writerow([name, cos, -sin, y, sin, cos, x])


def _tiles(folder: Path) -> Any:
    from warpbeam.transforms.storage.tiles import read_tiles

    return read_tiles(str(folder / "tiles.csv")).tiles


def _frame(tiles: Any) -> tuple[Any, Any]:
    """Matrices onto the output, and its box."""
    from warpbeam.kernels.geometry import affine
    from warpbeam.kernels.geometry.box import Box

    boxes = [affine.bounding_box(t.world_matrix(), t.box) for t in tiles]
    low = [min(b.start[i] for b in boxes) for i in range(2)]
    high = [max(b.stop[i] for b in boxes) for i in range(2)]
    shift = affine.translation([-float(v) for v in low])
    shape = tuple(b - a for a, b in zip(low, high, strict=True))
    return [shift @ t.world_matrix() for t in tiles], Box.of_shape(shape)


def _output(path: Path, shape: tuple[int, ...]) -> Any:
    import tensorstore as ts

    codec = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}]
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "shape": shape,
                "data_type": "uint16",
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [SHARD, SHARD]},
                },
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": {"chunk_shape": [CHUNK, CHUNK], "codecs": codec},
                    }
                ],
            },
        },
        create=True,
        delete_existing=True,
    ).result()


def _over_shards(shape: tuple[int, ...], threads: int, work: Any) -> None:
    from warpbeam.kernels.geometry.grid import BlockGrid

    grid = BlockGrid(shape, (SHARD, SHARD))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, map(grid.box, grid.indices())))


def limit(folder: Path, threads: int) -> dict[str, Any]:
    """The bare loop."""
    import cv2
    import tifffile

    from warpbeam.kernels.geometry import affine

    cv2.setNumThreads(1)
    tiles = _tiles(folder)
    matrices, whole = _frame(tiles)
    images = [tifffile.memmap(t.images[0].file, mode="r") for t in tiles]
    boxes = [affine.bounding_box(m, t.box) for m, t in zip(matrices, tiles, strict=True)]
    array = _output(folder / "limit.zarr", whole.shape)

    def shard(box: Any) -> None:
        out = np.zeros(box.shape, np.uint16)
        for image, matrix, reached in zip(images, matrices, boxes, strict=True):
            part = reached & box
            if not part:
                continue
            local = np.linalg.inv(matrix) @ affine.translation([float(v) for v in part.start])
            swapped = local[[1, 0]][:, [1, 0, 2]]
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            warped = cv2.warpAffine(np.asarray(image), swapped, part.shape[::-1], flags=flags)
            out[part.relative_to(box.start).slices] = warped
        array[box.slices].write(out).result()

    return _median(whole, lambda: _over_shards(whole.shape, threads, shard))


def kernel(folder: Path, threads: int) -> dict[str, Any]:
    """The fusion kernel with the same reads and writes: linear blending, tile count."""
    import cv2
    import tifffile

    from warpbeam.kernels.fuse.render import needed, render
    from warpbeam.kernels.fuse.view import TileView, source_box
    from warpbeam.kernels.fuse.warp import reach
    from warpbeam.kernels.geometry import affine

    cv2.setNumThreads(1)
    tiles = _tiles(folder)
    matrices, whole = _frame(tiles)
    images = [tifffile.memmap(t.images[0].file, mode="r") for t in tiles]
    boxes = [affine.bounding_box(m, t.box) for m, t in zip(matrices, tiles, strict=True)]
    array = _output(folder / "kernel.zarr", whole.shape)

    def shard(box: Any) -> None:
        views = []
        around = needed(box, "linear")
        for image, matrix, tile, reached in zip(images, matrices, tiles, boxes, strict=True):
            if not reached.meets(around):
                continue
            window = source_box(np.linalg.inv(matrix), tile.shape, around, reach("linear"))
            if window:
                views.append(TileView(image[window.slices], window, tile.shape, matrix))
        values = render(
            box, views, mode="linear", interpolation="linear", dtype=np.dtype(np.uint16)
        )
        array[box.slices].write(values).result()

    return _median(whole, lambda: _over_shards(whole.shape, threads, shard))


def job(folder: Path, threads: int) -> dict[str, Any]:
    """The whole job: checks, ledger, pyramid, window; start-up is reported beside it."""
    from warpbeam.pipelines import fuse

    config = _config(folder, threads)
    whole = _frame(_tiles(folder))[1]
    return _timed(whole, lambda: fuse.run(config))


def workers(folder: Path, threads: int) -> dict[str, Any]:
    """The job with workers that are processes of their own, as on a cluster: their peaks."""
    from warpbeam.pipelines import fuse

    with watched_children("sdk_worker_main") as peaks:
        fuse.run(_config(folder, threads), ["--direct_running_mode=multi_processing"])
    return {"peak_mb": round(max(peaks.values()))}


def _config(folder: Path, threads: int) -> Any:
    from warpbeam.pipelines.config import FuseConfig

    return FuseConfig.model_validate(
        {
            "tiles": str(folder / "tiles.csv"),
            "output": str(folder / "job"),
            "volume": {"shard_2d": [SHARD, SHARD], "chunk_2d": [CHUNK, CHUNK]},
            "run": {"workers": threads, "report": False},
        }
    )


def _median(whole: Any, work: Any) -> dict[str, Any]:
    """The middle one of five rounds: the first pays for memory that later ones find there.

    The job has one round only: it is compared with the first.
    """
    rounds = [_timed(whole, work) for _ in range(5)]
    middle = sorted(rounds, key=lambda r: r["cpu_s"])[2]
    return {**middle, "first_mpx_per_s": rounds[0]["mpx_per_s"]}


def _timed(whole: Any, work: Any) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    megapixels = whole.size / 1e6
    return {
        "megapixels": round(megapixels, 1),
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "mpx_per_cpu_s": round(megapixels / cpu, 1),
        "mpx_per_s": round(megapixels / wall, 1),
        "peak_mb": round(peak_mb()),
    }


PARTS = {"limit": limit, "kernel": kernel, "job": job, "workers": workers}


def in_own_process(part: str, folder: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    parts = ["limit", "kernel", *(["job"] if arguments.job else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiles(folder, arguments.grid, arguments.tile)
        found = {part: in_own_process(part, folder, arguments.threads) for part in parts}
    result: dict[str, Any] = {"tiles": arguments.grid**2, **found}
    rate = found["limit"]["mpx_per_cpu_s"]
    result["kernel_of_limit_cpu"] = round(found["kernel"]["mpx_per_cpu_s"] / rate, 2)
    if arguments.job:
        rate = found["job"]["mpx_per_s"]
        result["job_of_limit_wall"] = round(rate / found["limit"]["first_mpx_per_s"], 2)
        result["job_of_warm_limit_wall"] = round(rate / found["limit"]["mpx_per_s"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--grid", type=int, default=10, help="tiles on each side")
    parser.add_argument("--tile", type=int, default=1024, help="px on each side of a tile")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", action="store_true", help="measure the whole job too")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.folder, arguments.threads)))
        return
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
