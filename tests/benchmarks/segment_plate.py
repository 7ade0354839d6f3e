"""CPU time of a plate: `segment` beside a naive program and a tuned one of the usual kind.

    python tests/benchmarks/segment_plate.py --json

naive: imageio, scikit-image, a loop over labels as area filter, an INSERT per cell, a commit per
tile, masks not compressed. tuned: tifffile, all properties in one `regionprops_table`, `np.isin`,
rows in one transaction per four tiles. Both are written here from what is known of such programs.
`segment` runs as a whole job (one worker, ledger and Beam included, imports and report not), with
the same masks and rows; then with two workers, and with OME-Zarr plates besides. All in one run
on the same tiles; the figures are milliseconds of CPU per tile.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
import plate_cases
from running import environment

PROPERTIES = (
    "label", "area", "centroid_weighted", "orientation", "solidity", "extent", "perimeter",
    "eccentricity", "intensity_max", "intensity_mean", "intensity_min", "axis_major_length",
    "axis_minor_length",
)  # fmt: skip
SMALLEST, LARGEST = 50, 36000


def _database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    names = ", ".join(f"p{k} REAL" for k in range(len(PROPERTIES) + 1))
    connection.execute(f"CREATE TABLE cells (id TEXT PRIMARY KEY, tile TEXT, {names})")
    connection.execute("CREATE INDEX of_tile ON cells (tile)")
    return connection


def _labels(image: np.ndarray) -> np.ndarray:
    from skimage import filters, measure

    return measure.label(image > filters.threshold_otsu(image))


def _rows(tile: str, table: dict[str, np.ndarray]) -> list[tuple[Any, ...]]:
    import uuid

    columns = [table[name] for name in table]
    return [
        (str(uuid.uuid4()), tile, *(float(c[k]) for c in columns))
        for k in range(len(table["label"]))
    ]


_INSERT = f"INSERT INTO cells VALUES ({', '.join('?' * (len(PROPERTIES) + 3))})"


def naive(files: list[Path], out: Path) -> int:
    """Objects found; one tile after another."""
    import imageio.v3
    import tifffile
    from skimage import measure

    connection, found = _database(out / "naive.sqlite"), 0
    for file in files:
        image = imageio.v3.imread(file)
        labels = _labels(image)
        table = measure.regionprops_table(labels, image, properties=PROPERTIES)
        for label, area in zip(table["label"], table["area"], strict=True):
            if not SMALLEST < area < LARGEST:
                labels[labels == label] = 0
        kept = (table["area"] > SMALLEST) & (table["area"] < LARGEST)
        tifffile.imwrite(out / f"naive_{file.name}", labels.astype(np.uint16))
        for row in _rows(file.name, {k: v[kept] for k, v in table.items()}):
            connection.execute(_INSERT, row)
            found += 1
        connection.commit()
    return found


def tuned(files: list[Path], out: Path) -> int:
    """The same, with the usual improvements."""
    import tifffile
    from skimage import measure

    connection, found = _database(out / "tuned.sqlite"), 0
    for first in range(0, len(files), 4):
        rows = []
        for file in files[first : first + 4]:
            image = tifffile.imread(file)
            labels = _labels(image)
            table = measure.regionprops_table(labels, image, properties=PROPERTIES)
            kept = (table["area"] > SMALLEST) & (table["area"] < LARGEST)
            labels[~np.isin(labels, table["label"][kept])] = 0
            tifffile.imwrite(out / f"tuned_{file.name}", labels.astype(np.uint16))
            rows += _rows(file.name, {k: v[kept] for k, v in table.items()})
        connection.executemany(_INSERT, rows)
        connection.commit()
        found += len(rows)
    return found


def _timed(design: Any, files: list[Path], out: Path) -> tuple[float, int]:
    design(files[:1], _fresh(out / "warm"))
    began = time.process_time()
    found = design(files, _fresh(out / "measured"))
    return 1000 * (time.process_time() - began) / len(files), found


def _fresh(folder: Path) -> Path:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def job(plate: str, output: str, workers: int, ome_zarr: bool) -> dict[str, float]:
    """The whole job in this process, after one on a single tile, which loads everything."""
    from warpbeam.pipelines import segment
    from warpbeam.pipelines.segment_config import SegmentConfig

    def run(name: str, **select: Any) -> Any:
        return segment.run(SegmentConfig(
            plate=plate, output=f"{output}/{name}", select=select,
            masks={"ome_zarr": ome_zarr}, track={"enabled": False},
            run={"workers": workers, "report": False},
        ))  # fmt: skip

    run("warm", tile=1, wells="A1", timepoints="0")
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = run("measured")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    sites = outcome.numbers["sites"]
    return {"cpu_ms": 1000 * cpu / sites, "wall_ms": 1000 * wall / sites,
            "objects": outcome.numbers["objects"], "rows": outcome.numbers["rows"]}  # fmt: skip


def in_own_process(plate: Path, output: Path, workers: int, *, ome_zarr: bool) -> dict[str, float]:
    line = [sys.executable, __file__, "--job", str(plate), str(output), str(workers),
            str(int(ome_zarr))]  # fmt: skip
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _objects_in(output: Path, files: list[Path]) -> int:
    """Objects that the job found in some of the tiles."""
    from warpbeam.transforms.storage import tables

    names = {file.stem for file in files}
    rows = tables.read(str(output / "cells.parquet"))
    return sum(f"{r['well']}_T{r['timepoint']}_{r['tile']}" in names for r in rows)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plate = plate_cases.write(
            folder / "plate", tiles=arguments.tiles, times=arguments.times, size=arguments.size
        )
        files = sorted((folder / "plate").glob("*.tif"))
        few = files[:: max(1, len(files) // arguments.naive)][: arguments.naive]
        naive_ms, _ = _timed(naive, few, folder)
        some = files[:: max(1, len(files) // arguments.tuned)][: arguments.tuned]
        tuned_ms, found = _timed(tuned, some, folder)
        one = in_own_process(plate, folder / "one", 1, ome_zarr=False)
        two = in_own_process(plate, folder / "two", 2, ome_zarr=False)
        mine = _objects_in(folder / "one" / "measured", some)
        zarr = in_own_process(plate, folder / "zarr", 1, ome_zarr=True)
    return {
        "tiles": len(files),
        "objects": one["objects"],
        "same_objects_as_tuned": mine == found,
        "cpu_ms": {
            "naive": round(naive_ms), "tuned": round(tuned_ms), "segment": round(one["cpu_ms"], 1),
            "segment_and_ome_zarr": round(zarr["cpu_ms"], 1),
        },
        "naive_of_segment": round(naive_ms / one["cpu_ms"], 1),
        "tuned_of_segment": round(tuned_ms / one["cpu_ms"], 1),
        "wall_ms": {
            "one_worker": round(one["wall_ms"], 1), "two_workers": round(two["wall_ms"], 1),
        },
        "faster_with_two": round(one["wall_ms"] / two["wall_ms"], 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--naive", type=int, default=3, help="tiles that the naive program does")
    parser.add_argument("--tuned", type=int, default=8, help="tiles that the tuned program does")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        plate, output, workers, ome_zarr = arguments.job
        print(json.dumps(job(plate, output, int(workers), ome_zarr == "1")))
        return
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
