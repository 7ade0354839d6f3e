"""How much of a stack's drift its images can tell at all.

    python tests/benchmarks/align_limit.py FOLDER --json

FOLDER holds an aligned stack. What flow finds between its neighbours is the tissue's own course
(and what its makers left): a chain that is aligned by its images adds it to the drift of the
microscope. Both are told apart by their spectra alone: steps of the microscope are independent,
those of the tissue last for some sections. The best linear estimate that knows both spectra
(Wiener 1949) leaves, at each frequency, `P_tissue P_drift / (P_tissue + P_drift)` of the steps;
of their mean, a shear of the stack, it knows nothing but that drift has none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import align_cases
import conftest  # noqa: F401
import numpy as np

STEP_PX = 0.45  # of the drift in `align_cases.sheared`
SMOOTHED = 7  # neighbouring frequencies that are averaged
SEARCH_PX = 12


def tissue_steps(stack: np.ndarray, patch: int) -> np.ndarray:
    """The mean flow between neighbours, [section, yx], px."""
    from warpbeam.kernels.flow.field import FlowSettings, flow

    settings = FlowSettings((patch,) * 2, (20, 20), (SEARCH_PX,) * 2)
    pairs = itertools.pairwise(stack.astype(np.float32))
    found = [flow(b, a, settings).vectors for a, b in pairs]
    return np.nanmean(np.stack(found).astype(float), axis=(2, 3))


def spectrum(steps: np.ndarray) -> np.ndarray:
    """Power of the steps at each frequency but 0, [frequency, yx], px²."""
    raw = np.abs(np.fft.rfft(steps - steps.mean(axis=0), axis=0)[1:]) ** 2 / len(steps)
    edge = SMOOTHED // 2
    wide = np.pad(raw, ((edge, edge), (0, 0)), "edge")
    return np.stack([np.convolve(c, np.ones(SMOOTHED) / SMOOTHED, "valid") for c in wide.T], 1)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.folder is None:
        stack = align_cases.synthetic_stack(arguments.sections, arguments.size)
    else:
        stack = align_cases.load_stack(arguments.folder)[: arguments.sections]
    steps = tissue_steps(stack, arguments.patch)
    tissue, count = spectrum(steps), len(steps)
    left = tissue * STEP_PX**2 / (tissue + STEP_PX**2)
    half = np.pi * np.arange(1, len(left) + 1) / count
    along = left / (4 * np.sin(half) ** 2)[:, None]  # of the sum of the steps, without its line
    centred = steps - steps.mean(axis=0)
    return {
        "sections": len(stack),
        "tissue_step_px": {"mean": np.abs(steps.mean(axis=0)).round(3).tolist(),
                           "deviation": steps.std(axis=0).round(3).tolist()},
        "lag_1": ((centred[1:] * centred[:-1]).mean(axis=0) / centred.var(axis=0)).round(2)
        .tolist(),
        "least_step_error_px": np.sqrt(2 / count * left.sum(axis=0)).round(3).tolist(),
        "least_drift_about_a_line_px": np.sqrt(2 / count * along.sum(axis=0)).round(2).tolist(),
        "line_px": round(STEP_PX * float(np.sqrt(count)), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?", help="an aligned stack of images")
    parser.add_argument("--size", type=int, default=256, help="px of the texture without FOLDER")
    parser.add_argument("--sections", type=int, default=250)
    parser.add_argument("--patch", type=int, default=120, help="px")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
