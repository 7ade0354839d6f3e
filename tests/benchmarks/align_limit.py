"""How much of a stack's drift its images can tell at all.

    python tests/benchmarks/align_limit.py FOLDER --json

FOLDER holds an aligned stack. What flow finds between its neighbours is the tissue's own course
(and what its makers left): a chain that is aligned by its images adds it to what the microscope
does. Both are told apart by their spectra alone, mode by mode of a cosine transform of each
section: the tissue's steps last for some sections, while those of the microscope are independent
(drift, of whole sections) or differences of what is (the warps of `align_cases.sheared`). The best
linear estimate that knows both spectra (Wiener 1949) leaves, at each frequency,
`P_tissue P_microscope / (P_tissue + P_microscope)`; of the mean of all steps, a shear of the
stack, it knows nothing but that drift has none. What is left of whole sections and of their bends
together is the least residual between neighbours of any such method.
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
from scipy.fft import dctn

STEP_PX = 0.45  # of the drift in `align_cases.sheared`
SMOOTHED = 7  # neighbouring frequencies that are averaged
SEARCH_PX = 12
STRIDE_PX = 20
RAYLEIGH = np.sqrt(2 * np.log(2))  # median length of a vector of two components of deviation 1


def tissue_flow(stack: np.ndarray, patch: int) -> np.ndarray:
    """The flow between neighbours, [section, yx, y, x], px; where there is none, their mean."""
    from warpbeam.kernels.flow.field import FlowSettings, flow

    settings = FlowSettings((patch,) * 2, (STRIDE_PX,) * 2, (SEARCH_PX,) * 2)
    pairs = itertools.pairwise(stack.astype(np.float32))
    found = np.stack([flow(b, a, settings).vectors for a, b in pairs]).astype(float)
    return np.where(np.isfinite(found), found, np.nanmean(found, axis=(2, 3), keepdims=True))


def warp_variance(stack: np.ndarray, patch: int) -> np.ndarray:
    """Of the modes of the warps that `align_cases.sheared` makes, [yx mode], px^2."""
    case = align_cases.sheared(stack)
    at = [np.arange((patch - 1) / 2, n - patch / 2, STRIDE_PX) for n in stack.shape[1:]]
    points = np.meshgrid(*at, indexing="ij")
    warps = np.stack(
        [case.truth(z, *points) - case.drift[z][:, None, None] for z in range(len(stack))]
    )
    return dctn(warps, axes=(2, 3), norm="ortho").var(axis=0).ravel()


def least_left(flow: np.ndarray, warps: np.ndarray) -> np.ndarray:
    """Power that any linear estimate leaves of the modes of flow, [frequency, yx, mode], px^2 of
    a node."""
    count, nodes = len(flow), flow[0, 0].size
    tissue = spectrum(dctn(flow, axes=(2, 3), norm="ortho").reshape(count, -1))
    turn = 2 * np.pi * np.arange(1, len(tissue) + 1) / count
    drift = np.zeros((2, nodes))
    drift[:, 0] = STEP_PX**2 * nodes
    moved = (2 - 2 * np.cos(turn))[:, None] * warps + drift.ravel()
    left = tissue * moved / np.maximum(tissue + moved, 1e-12)
    return left.reshape(len(left), 2, nodes) / nodes


def spectrum(steps: np.ndarray) -> np.ndarray:
    """Power of the steps [section, series] at each frequency but 0, [frequency, series], px^2."""
    raw = np.abs(np.fft.rfft(steps - steps.mean(axis=0), axis=0)[1:]) ** 2 / len(steps)
    edge = SMOOTHED // 2
    wide = np.pad(raw, ((edge, edge), (0, 0)), "edge")
    return np.stack([np.convolve(c, np.ones(SMOOTHED) / SMOOTHED, "valid") for c in wide.T], 1)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.folder is None:
        stack = align_cases.synthetic_stack(arguments.sections, arguments.size)
    else:
        stack = align_cases.load_stack(arguments.folder, arguments.axis)[: arguments.sections]
    flow = tissue_flow(stack, arguments.patch)
    steps, count = flow.mean(axis=(2, 3)), len(flow)
    left = least_left(flow, warp_variance(stack, arguments.patch))
    whole, bends = left[..., 0], left[..., 1:].sum(axis=2)
    half = np.pi * np.arange(1, len(left) + 1) / count
    along = whole / (4 * np.sin(half) ** 2)[:, None]  # of the sum of the steps, without its line
    centred = steps - steps.mean(axis=0)
    deviation = {
        name: np.sqrt(2 / count * power.sum(axis=0))
        for name, power in (("step", whole), ("bend", bends), ("drift", along))
    }
    both = np.mean(deviation["step"] ** 2 + deviation["bend"] ** 2)
    return {
        "sections": len(stack),
        "tissue_step_px": {"mean": np.abs(steps.mean(axis=0)).round(3).tolist(),
                           "deviation": steps.std(axis=0).round(3).tolist()},
        "lag_1": ((centred[1:] * centred[:-1]).mean(axis=0) / centred.var(axis=0)).round(2)
        .tolist(),
        "least_step_error_px": deviation["step"].round(3).tolist(),
        "least_bend_error_px": deviation["bend"].round(3).tolist(),
        "least_residual_median_px": round(float(RAYLEIGH * np.sqrt(both)), 3),
        "least_drift_about_a_line_px": deviation["drift"].round(2).tolist(),
        "line_px": round(STEP_PX * float(np.sqrt(count)), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?", help="an aligned stack of images")
    parser.add_argument("--size", type=int, default=256, help="px of the texture without FOLDER")
    parser.add_argument("--axis", type=int, default=0, help="of the stack, across the sections")
    parser.add_argument("--sections", type=int, default=250)
    parser.add_argument("--patch", type=int, default=60, help="px")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
