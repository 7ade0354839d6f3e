"""Whether memory and cost per pixel of the fuse job grow with the mosaic.

    python tests/benchmarks/fusion_scaling.py --grids 5 10 20 --json

CPU per pixel is that of the work: what a job of one tile costs (interpreter, imports,
building the graph) is measured too and taken off.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from fusion_speed import in_own_process, write_tiles


def measure(grid: int, tile: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        write_tiles(Path(name), grid, tile)
        return in_own_process("job", Path(name), threads)


def run(grids: list[int], tile: int, threads: int) -> dict[str, Any]:
    fixed = measure(1, tile, threads)["cpu_s"]
    rows = {grid: measure(grid, tile, threads) for grid in grids}
    cost = {g: (r["cpu_s"] - fixed) / r["megapixels"] * 1000 for g, r in rows.items()}
    peaks = [row["peak_mb"] for row in rows.values()]
    return {
        "one_tile_cpu_s": fixed,
        "peak_mb": {grid**2: row["peak_mb"] for grid, row in rows.items()},
        "peak_growth": round(max(peaks) / min(peaks) - 1, 3),
        "cpu_ms_per_megapixel": {grid**2: round(value, 1) for grid, value in cost.items()},
        "cpu_growth": round(max(cost.values()) / min(cost.values()) - 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--grids", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--tile", type=int, default=1024, help="px on each side of a tile")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments.grids, arguments.tile, arguments.threads)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
