"""Whether memory and cost per pixel of the fuse job grow with the mosaic.

    python tests/benchmarks/fusion_scaling.py --grids 5 10 20 --repeats 5 --json

CPU per pixel is marginal: what a mosaic costs more than the next smaller one, over the
pixels that it has more. What every job pays once (interpreter, imports, graph, the first use
of each library) is in both and drops out, and nothing else does: were a pixel dearer in a
larger mosaic, the last step would be dearer than the first. The share of overlap hardly
tells in the steps either: 1.21 and 1.22 tile pixels per output pixel from 25 to 100 to 400
tiles. Each job runs in a process of its own, sizes take turns, and the median of the repeats
counts. The memory is that of worker processes, as a cluster has them, the larger one of two;
that of the whole job in one process, with the tile list and the graph, is beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fusion_speed import in_own_process, write_tiles


def measure(grid: int, tile: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        write_tiles(Path(name), grid, tile)
        job = in_own_process("job", Path(name), threads)
        shutil.rmtree(Path(name) / "job")
        return {**job, "worker_mb": in_own_process("workers", Path(name), 2)["peak_mb"]}


def run(grids: list[int], tile: int, threads: int, repeats: int) -> dict[str, Any]:
    rounds = [{g: measure(g, tile, threads) for g in grids} for _ in range(repeats)]
    cpu, worker, peak, pixels = (
        {g: statistics.median(row[g][name] for row in rounds) for g in grids}
        for name in ("cpu_s", "worker_mb", "peak_mb", "megapixels")
    )
    steps = {
        f"{a**2} to {b**2}": (cpu[b] - cpu[a]) / (pixels[b] - pixels[a]) * 1000
        for a, b in itertools.pairwise(grids)
    }
    first, last = next(iter(steps.values())), list(steps.values())[-1]
    return {
        "cpu_s": {g**2: value for g, value in cpu.items()},
        "worker_mb": {g**2: value for g, value in worker.items()},
        "worker_growth": round(max(worker.values()) / min(worker.values()) - 1, 3),
        "peak_mb": {g**2: value for g, value in peak.items()},
        "cpu_ms_per_megapixel": {step: round(value, 1) for step, value in steps.items()},
        "cpu_growth": round(last / first - 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--grids", type=int, nargs="+", default=[5, 10, 20], help="rising")
    parser.add_argument("--tile", type=int, default=1024, help="px on each side of a tile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    if len(arguments.grids) < 2:
        parser.error("a step needs two grids")
    result = run(arguments.grids, arguments.tile, arguments.threads, arguments.repeats)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
