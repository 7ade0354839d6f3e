"""How well three neighbouring sections agree, where no truth is known.

    python tests/benchmarks/align_closure.py FOLDER --preset em_2d_fast --json

FOLDER holds raw serial sections as images. The job aligns them; flow from section z to z - 2 is
then compared with that from z to z - 1 followed by that from z - 1 to z - 2, node by node.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401
import numpy as np


def closures(output: Path) -> np.ndarray:
    """The lengths of all gaps that three flows leave open, px; NaN where one is not known."""
    from warpbeam.kernels.maps.compose import compose
    from warpbeam.kernels.maps.coordinate_map import on_lattice
    from warpbeam.transforms.align.frame import clean_uri, load_frame
    from warpbeam.transforms.storage import fields
    from warpbeam.transforms.storage.run_folder import RunFolder

    run = RunFolder(str(output))
    frame = load_frame(run)
    flows = fields.load(clean_uri(run)).read().astype(np.float64)
    one, two = (frame.settings.gaps.index(gap) for gap in (1, 2))
    found = []
    for z in range(2, frame.depth):
        first, second, whole = (
            on_lattice(flows[gap, :, at], frame.lattice)
            for gap, at in ((one, z), (one, z - 1), (two, z))
        )
        found.append(np.linalg.norm(compose(first, second).u - whole.u, axis=0).ravel())
    return np.concatenate(found)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from warpbeam.pipelines import align
    from warpbeam.pipelines.align_config import AlignConfig

    flow: dict[str, Any] = {"gaps": [1, 2], "bridges": [3, 4]}
    if arguments.patch:
        flow |= {"patch_px": arguments.patch, "stride_px": arguments.stride, "scales": [1]}
    with tempfile.TemporaryDirectory() as name:
        values = {
            "sections": str(arguments.folder),
            "output": f"{name}/out",
            "preset": arguments.preset,
            "flow": flow,
            "run": {"report": False},
        }
        outcome = align.run(AlignConfig.model_validate(values))
        lengths = closures(Path(name) / "out")
    known = lengths[np.isfinite(lengths)]
    return {
        "sections": outcome.numbers["sections"],
        "skipped": outcome.numbers["skipped_sections"],
        "closure_px": {"median": float(np.median(known)), "p95": float(np.quantile(known, 0.95))},
        "closed_nodes": known.size,
        "residual_median_px": outcome.numbers["residual_median_px"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="serial sections as images")
    parser.add_argument("--preset", default="em_2d")
    parser.add_argument("--patch", type=int, help="px of the full sections, instead of the preset")
    parser.add_argument("--stride", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
