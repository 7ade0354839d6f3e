"""How well tiles of a mosaic with known truth are placed, and how fast links are measured.

python tests/benchmarks/stitch_positions.py --case real --canvas em --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are for one core

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)
import cv2
import numpy as np
from montage_cases import DIFFICULTIES, Case, make_case

from warpbeam.kernels.geometry.layout import components
from warpbeam.kernels.montage.null import Verdict, accept, null_pairs, rolled
from warpbeam.kernels.montage.pair import Link, Strip, coarse_peak, measure_link, strip_boxes
from warpbeam.kernels.montage.solve import solve
from warpbeam.kernels.montage.solve_order import Correspondences

SEARCH_PX = (16, 16)


def strips_of(case: Case, link: tuple[int, int]) -> tuple[Strip, Strip]:
    a, b = link
    shape = case.tiles.shape[1:]
    offset = case.nominal[b] - case.nominal[a]
    box_a, box_b = strip_boxes(shape, shape, offset=offset, search=SEARCH_PX)
    return (
        Strip(case.tiles[a][box_a.slices], box_a.start),
        Strip(case.tiles[b][box_b.slices], box_b.start),
    )


def measure(case: Case, blocks: int) -> tuple[list[Link], float]:
    """All links, and the CPU seconds it took."""
    strips = [strips_of(case, link) for link in case.links]
    begin = time.process_time()
    links = [
        measure_link(
            *pair, offset=case.nominal[b] - case.nominal[a], search=SEARCH_PX, blocks=blocks
        )
        for pair, (a, b) in zip(strips, case.links, strict=True)
    ]
    return links, time.process_time() - begin


def judge(case: Case, links: list[Link]) -> tuple[Verdict, float]:
    """Which links hold, and the CPU seconds of the null measurements."""
    strips = [strips_of(case, link) for link in case.links]
    begin = time.process_time()
    null = []
    for pair in null_pairs([fixed.voxels.shape for fixed, _ in strips], seed=0):
        a, b = case.links[pair.fixed_link]
        fixed, moving = strips[pair.fixed_link][0], strips[pair.moving_link][1]
        offset = case.nominal[b] - case.nominal[a]
        moving = rolled(moving, pair.roll)
        null.append(coarse_peak(fixed, moving, offset=offset, search=SEARCH_PX).score)
    verdict = accept(np.array([link.score for link in links]), np.array(null))
    return verdict, time.process_time() - begin


def positions(case: Case, links: list[Link], accepted: np.ndarray) -> np.ndarray:
    """The tiles' positions from the accepted links and the stage."""
    kept = [k for k in np.flatnonzero(accepted) if not links[k].reason]
    count = [len(links[k].fixed_points) for k in kept]
    ends = np.repeat(np.array([case.links[k] for k in kept]).reshape(-1, 2), count, axis=0)
    found = Correspondences(
        ends[:, 0],
        ends[:, 1],
        np.concatenate([links[k].fixed_points for k in kept]),
        np.concatenate([links[k].moving_points for k in kept]),
        np.concatenate([links[k].information for k in kept]),
        np.repeat(np.array(kept), count),
    )
    placed = solve(found, case.nominal, model="translation", stage_sigma_px=5.0)
    return placed.matrices[:, :2, 2]


def errors(case: Case, placed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position error of each observable tile (NaN for the others) and of each informative seam, px.

    Tiles that informative links join share one unknown offset: the median error.
    """
    pairs = np.array(case.links)
    error = placed - case.truth
    label = components(len(placed), pairs[case.informative])
    distance = np.full(len(placed), np.nan)
    for number in np.unique(label):
        members = np.flatnonzero(label == number)
        if len(members) > 1:
            off = error[members] - np.median(error[members], axis=0)
            distance[members] = np.linalg.norm(off, axis=1)
    seams = pairs[case.informative]
    return distance, np.linalg.norm(error[seams[:, 0]] - error[seams[:, 1]], axis=1)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    case = make_case(
        DIFFICULTIES[arguments.case],
        arguments.canvas,
        arguments.grid,
        arguments.tile,
        arguments.seed,
    )
    links, seconds = measure(case, arguments.blocks)
    verdict, null_seconds = judge(case, links)
    used = verdict.accepted & np.array([not link.reason for link in links])
    distance, seam = errors(case, positions(case, links, used))
    score = np.array([link.score for link in links])
    return {
        "case": arguments.case,
        "canvas": arguments.canvas,
        "tiles": len(case.tiles),
        "links": len(links),
        "position_median_px": round(float(np.nanmedian(distance)), 4),
        "position_max_px": round(float(np.nanmax(distance)), 4),
        "seam_max_px": round(float(seam.max()), 4),
        "blank": int(case.blank.sum()),
        "blank_accepted": int((used & case.blank).sum()),
        "good": int(case.informative.sum()),
        "good_lost": int((~used & case.informative).sum()),
        "threshold": round(verdict.threshold, 2),
        "least_good_score": round(float(score[case.informative].min()), 2),
        "most_blank_score": round(float(score[case.blank].max(initial=0)), 2),
        "links_per_cpu_second": round(len(links) / seconds, 1),
        "links_per_cpu_second_with_null": round(len(links) / (seconds + null_seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--case", choices=sorted(DIFFICULTIES), default="easy")
    parser.add_argument("--canvas", default="em", help="em, sparse, or an image file or folder")
    parser.add_argument("--grid", type=int, default=8, help="tiles on each side")
    parser.add_argument("--tile", type=int, default=512, help="px on each side of a tile")
    parser.add_argument("--blocks", type=int, default=1, help="point pairs per link")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key:32} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
