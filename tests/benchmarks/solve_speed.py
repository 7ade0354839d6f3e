"""How long the global solve takes: a square grid of tiles with sub-pixel noise and gross outliers.

    python tests/benchmarks/solve_speed.py --tiles 100000 --json

Reports wall and CPU seconds, the peak memory of the process, and the error of the positions
after removing the common shift.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401
from peak_memory import peak_mb

from warpbeam.kernels.montage.solve import Correspondences, solve

PITCH_PX = 460.0
JITTER_PX = 8.0
NOISE_PX = 0.05
OUTLIER_PX = 100.0


def mosaic(
    tiles: int, outliers: float, seed: int
) -> tuple[np.ndarray, np.ndarray, Correspondences, np.ndarray]:
    """True and stage positions of a square grid, its links, and which of them are wrong."""
    rng = np.random.default_rng(seed)
    side = round(tiles**0.5)
    index = np.arange(side * side).reshape(side, side)
    a = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    b = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    stage = np.stack(np.divmod(index.ravel(), side), axis=1) * PITCH_PX
    truth = stage + rng.normal(0, JITTER_PX, stage.shape)
    # texture differs from link to link and from axis to axis
    angle = rng.uniform(0, np.pi, len(a))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).T
    deviation = NOISE_PX * rng.lognormal(0, 0.5, (len(a), 2))
    information = np.einsum("mki,mk,mkj->mij", turn, deviation**-2, turn)
    noise = np.einsum("mki,mk->mi", turn, deviation * rng.normal(0, 1, (len(a), 2)))
    shift = truth[b] - truth[a] + noise
    wrong = rng.random(len(a)) < outliers
    shift[wrong] += rng.uniform(-OUTLIER_PX, OUTLIER_PX, (wrong.sum(), 2))
    links = Correspondences(a, b, shift, np.zeros_like(shift), information)
    return truth, stage, links, wrong


def measure(tiles: int, outliers: float, seed: int) -> dict[str, float]:
    truth, stage, links, wrong = mosaic(tiles, outliers, seed)
    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    solution = solve(links, stage, model="translation", stage_sigma_px=JITTER_PX)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    main = solution.component == 0
    error = (solution.matrices[:, :-1, -1] - truth)[main]
    error = np.linalg.norm(error - np.median(error, axis=0), axis=1)
    step = (solution.matrices[:, :-1, -1] - truth)[links.tile_b] - (
        solution.matrices[:, :-1, -1] - truth
    )[links.tile_a]
    seam = np.linalg.norm(step[main[links.tile_a] & main[links.tile_b]], axis=1)
    return {
        "tiles": len(stage),
        "links": len(wrong),
        "wall_s": wall,
        "cpu_s": cpu,
        "memory_before_mb": before,
        "memory_peak_mb": peak_mb(),
        "error_median_px": float(np.median(error)),
        "error_max_px": float(error.max()),
        "neighbours_median_px": float(np.median(seam)),
        "neighbours_max_px": float(seam.max()),
        "islands": len(solution.islands),
        "scale_px": solution.scale_px,
        "outliers_kept": int((solution.link_weight[wrong] > 0).sum()),
        "good_rejected": int((solution.link_weight[~wrong] == 0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--outliers", type=float, default=0.05, help="share of wrong links")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    numbers = measure(options.tiles, options.outliers, options.seed)
    if options.json:
        print(json.dumps(numbers))
    else:
        print("\n".join(f"{name:>22} {value:.6g}" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
