"""Tiles that are bent, each in its own way: do they meet after elastic `stitch`, and what it costs.

    python tests/benchmarks/elastic_stitch.py --json
    python tests/benchmarks/elastic_stitch.py --canvas /data/sections --overlap 60

A tile's pixel p shows the canvas at `place + p + bend(p)`, with a smooth bend of up to 3 px. The
seam error is the distance between the canvas points that two tiles draw at the same output voxel;
what all tiles do together cannot be known and does not count. CPU seconds are those of processes
of their own: one whose store of compiled JAX programs is empty, and one that finds them there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)
import cv2
import numpy as np
from montage_cases import canvas_of

MARGIN_PX = 32
WAVES, CYCLES = 3, 2.0
EVERY_PX = 3


@dataclass(frozen=True)
class Bent:
    """One tile: where it lies on the canvas, and its bend at points (yx, rows)."""

    place: np.ndarray
    bend: Callable[[np.ndarray], np.ndarray]

    def canvas(self, points: np.ndarray) -> np.ndarray:
        """What the tile's points show."""
        return self.place + points + self.bend(points)


def make_bend(rng: np.random.Generator, amplitude: float, side: int) -> Any:
    """A displacement of up to `amplitude` px and two cycles over a tile, on each axis."""
    k, phase = rng.uniform(-CYCLES, CYCLES, (2, WAVES, 2)), rng.uniform(0, 2 * np.pi, (2, WAVES))

    def at(points: np.ndarray) -> np.ndarray:
        angles = 2 * np.pi * np.einsum("cwd,nd->ncw", k, points) / side + phase
        return amplitude / WAVES * np.sin(angles).sum(axis=2)

    return at


def write_tiles(folder: Path, arguments: argparse.Namespace) -> list[Bent]:
    """Tiles as TIFF, their list with nominal positions, and the truth."""
    import tifffile

    rng, side, grid = np.random.default_rng(arguments.seed), arguments.tile, arguments.grid
    step = side - arguments.overlap
    canvas = canvas_of(arguments.canvas, (grid - 1) * step + side + 2 * MARGIN_PX, arguments.seed)
    pixels = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2).astype(float)
    tiles, rows = [], []
    for r in range(grid):
        for c in range(grid):
            nominal = np.array([r, c]) * step
            place = nominal + rng.uniform(-arguments.jitter, arguments.jitter, 2) + MARGIN_PX
            tile = Bent(place, make_bend(rng, arguments.amplitude, side))
            y, x = tile.canvas(pixels).T.reshape(2, side, side).astype(np.float32)
            image = cv2.remap(canvas, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
            image = np.rint(image + rng.normal(0, arguments.noise, image.shape)).clip(0, 255)
            tifffile.imwrite(folder / f"t_{r}_{c}.tif", image.astype(np.uint8))
            rows.append(
                {"file": f"t_{r}_{c}.tif", "tile": len(tiles), "y": nominal[0], "x": nominal[1]}
            )
            tiles.append(tile)
    with open(folder / "tiles.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tiles


def seam_errors(run: Path, tiles: list[Bent], side: int, *, bent: bool) -> np.ndarray:
    """Distances on the canvas of what two tiles draw at the same output point, px."""
    from warpbeam.kernels.geometry import affine
    from warpbeam.transforms.bends import BendReader
    from warpbeam.transforms.placement import load_placement
    from warpbeam.transforms.storage.run_folder import RunFolder

    folder = RunFolder(str(run))
    bends, placed = BendReader(folder), list(load_placement(folder))
    matrices = [affine.homogeneous(p.matrix) for p in placed]
    low, high = (f([m[:2, 2] for m in matrices], axis=0) for f in (np.min, np.max))
    axes = [np.arange(a, b + side, EVERY_PX) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    shown = []
    for one, matrix in zip(placed, matrices, strict=True):
        at = affine.apply(np.linalg.inv(matrix), points)
        bend = bends.of(one.source.key) if bent else None
        at = at if bend is None else bend.bent(at)
        inside = ((at >= 0) & (at <= side - 1)).all(axis=1)
        canvas = tiles[int(one.source.key.tile)].canvas(at)
        shown.append(np.where(inside[:, None], canvas, np.nan))
    pairs = [np.linalg.norm(a - b, axis=1) for i, a in enumerate(shown) for b in shown[:i]]
    every = np.concatenate(pairs)
    return every[np.isfinite(every)]


def job(tiles: Path, output: Path) -> dict[str, float]:
    """CPU seconds of the job in this process, after the imports; and again; and of the process."""
    import apache_beam  # noqa: F401
    import jax  # noqa: F401
    import scipy.sparse.linalg  # noqa: F401

    from warpbeam.pipelines import stitch
    from warpbeam.pipelines.config import StitchConfig

    def once(name: str) -> float:
        given = {"tiles": str(tiles), "output": str(output / name), "elastic": {"enabled": True},
                 "run": {"report": False, "workers": 1}}  # fmt: skip
        before = time.process_time()
        stitch.run(StitchConfig.model_validate(given))
        return time.process_time() - before

    first = once("run")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"job": first, "process": usage.ru_utime + usage.ru_stime, "again": once("again")}


def measured(folder: Path, name: str) -> dict[str, float]:
    """The same in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    store = {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    done = subprocess.run(
        [sys.executable, __file__, "--job", str(folder), name],
        env={**os.environ, **threads, **store}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiles = write_tiles(folder, arguments)
        fresh = measured(folder, "fresh")
        kept = [measured(folder, f"kept_{i}") for i in range(arguments.repeats)]
        errors = {
            kind: seam_errors(folder / "fresh" / "run", tiles, arguments.tile, bent=bent)
            for kind, bent in (("rigid", False), ("elastic", True))
        }
    result: dict[str, Any] = {"tiles": len(tiles)}
    for kind, found in errors.items():
        result[f"{kind}_seam_px"] = {
            "median": round(float(np.median(found)), 3),
            "p95": round(float(np.quantile(found, 0.95)), 3),
            "max": round(float(found.max()), 2),
        }
    result["cpu_s"] = {
        "job": round(float(np.median([k["job"] for k in kept])), 2),
        "job_again": round(float(np.median([k["again"] for k in kept])), 2),
        "process": round(float(np.median([k["process"] for k in kept])), 2),
        "job_compiling": round(fresh["job"], 2),
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--canvas", default="em", help="em, sparse, or an image file or folder")
    parser.add_argument("--grid", type=int, default=3, help="tiles on each side")
    parser.add_argument("--tile", type=int, default=512, help="side of a tile, px")
    parser.add_argument("--overlap", type=int, default=180, help="nominal, px")
    parser.add_argument("--jitter", type=float, default=10, help="error of the stage, px")
    parser.add_argument("--amplitude", type=float, default=3, help="of the bends, px")
    parser.add_argument("--noise", type=float, default=4, help="standard deviation, of 255")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the job to time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        folder, name = arguments.job
        print(json.dumps(job(Path(folder) / "tiles.csv", Path(folder) / name)))
        return
    result = run(arguments)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
