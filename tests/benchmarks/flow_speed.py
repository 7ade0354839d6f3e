"""Speed and accuracy of the flow, in CPU seconds of one process.

    python tests/benchmarks/flow_speed.py FOLDER

FOLDER holds at least four neighbouring sections of one size as TIFF. Synthetic pairs have a known
flow; neighbouring sections are scored by how well a known extra warp is recovered. Compilation is
not counted: a first, uncounted call makes it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import conftest  # noqa: F401
import cv2
import flow_cases
import numpy as np

from warpbeam.kernels.flow.clean import CleanSettings, trusted
from warpbeam.kernels.flow.field import Flow, FlowSettings, flow

CASES = {
    "160/40": (160, 40, 40, 0.0),
    "80/20": (80, 20, 30, 0.0),
    "160/40, 10 % masked": (160, 40, 40, 0.1),
}
BARS = {
    "160/40": (1440, 0.25, 0.7),
    "80/20": (5800, 0.15, 0.4),
    "160/40, 10 % masked": (735, 0.3, 0.8),
}


def measured(fixed, moving, settings, repeats=3, **masks) -> tuple[Flow, float]:
    """The flow, and the least CPU seconds of `repeats` calls after one that compiles."""
    flow(fixed, moving, settings, **masks)
    best = np.inf
    for _ in range(repeats):
        begin = time.process_time()
        found = flow(fixed, moving, settings, **masks)
        best = min(best, time.process_time() - begin)
    return found, best


def synthetic(sections: list[np.ndarray]) -> None:
    for name, (patch, stride, search, masked) in CASES.items():
        settings = FlowSettings((patch,) * 2, (stride,) * 2, (search,) * 2)
        gaps, rates = [], []
        for seed in range(3):
            fixed, moving, masks, truth = flow_cases.synthetic(sections, seed=seed, masked=masked)
            found, seconds = measured(
                fixed, moving, settings, fixed_mask=masks[0], moving_mask=masks[1]
            )
            gap = found.vectors - truth(*found.lattice.nodes())
            gaps.append(np.linalg.norm(gap, axis=0).ravel())
            rates.append(found.ncc.size / seconds)
        gap = np.concatenate(gaps)
        known = gap[np.isfinite(gap)]
        bar = BARS[name]
        print(
            f"{name}: {np.median(rates):.0f} patches/s (bar {bar[0]}), end-point error "
            f"{np.median(known):.3f} / {np.quantile(known, 0.95):.3f} px median / p95 "
            f"(bar {bar[1]} / {bar[2]}), {known.size / gap.size:.1%} have a vector"
        )


def real(sections: list[np.ndarray]) -> None:
    rules = CleanSettings(max_deviation=5.0)
    for patch, stride, search in ((160, 40, 40), (80, 20, 30)):
        settings = FlowSettings((patch,) * 2, (stride,) * 2, (search,) * 2)
        gaps = []
        for i in range(len(sections) - 1):
            first, second, warped, truth = flow_cases.neighbours(*sections[i : i + 2], seed=i)
            plain, other = flow(first, second, settings), flow(first, warped, settings)
            gap = flow_cases.neighbour_error(
                plain.vectors, other.vectors, plain.lattice.nodes(), truth
            )
            gap[~(trusted(plain, rules) & trusted(other, rules))] = np.nan
            gaps.append(gap.ravel())
        gap = np.concatenate(gaps)
        kept = gap[np.isfinite(gap)]
        print(
            f"neighbouring sections {patch}/{stride}: {np.median(kept):.2f} / "
            f"{np.quantile(kept, 0.95):.2f} px median / p95, {kept.size / gap.size:.0%} kept by "
            "both flows (bar at 160/40: 0.6 / 1.8 px, 60 %)"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cv2.setNumThreads(1)
    stack = flow_cases.sections(Path(sys.argv[1]))
    synthetic(stack)
    real(stack)
