"""How well `align` undoes a known misalignment of a real, aligned stack.

    python tests/benchmarks/align_stack.py [FOLDER] --json

FOLDER holds an aligned stack as images; without it texture is made. It is taken apart (see
`align_cases.sheared`) and aligned again in blocks along z, and as one chain. Truth is what the
stack was; so what the tissue itself does from section to section counts as error wherever it is
taken for misalignment: how much that is depends on how obliquely the tissue is cut, so that a
cube of isotropic voxels is three stacks (`--axis`). Residuals are given against that truth, and
as flow measured again between neighbours of the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import align_cases
import conftest  # noqa: F401
import cv2
import numpy as np

EDGE_PX = 20


def write(case: align_cases.Case, folder: Path) -> None:
    folder.mkdir()
    for z, image in enumerate(case.sections):
        cv2.imwrite(str(folder / f"section_{z:05d}.tif"), image)


def aligned(folder: Path, output: Path, settings: dict[str, Any]) -> float:
    """Runs the job; returns its CPU seconds."""
    from warpbeam.pipelines import align
    from warpbeam.pipelines.align_config import AlignConfig

    begin = time.process_time()
    values = {"sections": str(folder), "output": str(output), "preset": "em_3d", **settings}
    outcome = align.run(AlignConfig.model_validate(values))
    if outcome.failures:
        raise SystemExit(f"failed: {outcome.failures[:3]}")
    return time.process_time() - begin


def forward(output: Path) -> Callable[[int, np.ndarray], np.ndarray]:
    """Where points of a section go."""
    from warpbeam.kernels.maps.interpolate import offsets_at
    from warpbeam.transforms.storage import displacements

    field = displacements.load(str(output / "maps" / "forward.zarr"))
    return lambda z, at: at + offsets_at(field.read(z), at)


def measured_again(output: Path, patch: int, stride: int) -> dict[str, float]:
    """Flow between neighbours of the aligned volume, where both show tissue."""
    from warpbeam.kernels.flow.field import FlowSettings, flow
    from warpbeam.kernels.geometry.box import Box
    from warpbeam.transforms.storage import volume

    level = volume.open_volume(str(output / "volume.ome.zarr")).level(0)
    sections = level.read(Box.of_shape(level.shape))[0, 0].astype(np.float32)
    sections[sections == 0] = np.nan
    settings = FlowSettings((patch,) * 2, (stride,) * 2, (10, 10))
    found = []
    for z in range(1, len(sections)):
        vectors = flow(sections[z], sections[z - 1], settings).vectors
        found.append(np.linalg.norm(vectors, axis=0).ravel())
    length = np.concatenate(found)
    length = length[np.isfinite(length)]
    return {"median": float(np.median(length)), "p95": float(np.quantile(length, 0.95))}


def detrended(drift: np.ndarray) -> float:
    """The largest drift about the straight line through the stack: a line is a shear, which
    nothing in the images tells from tissue cut obliquely."""
    z = np.arange(len(drift))
    line = np.stack([np.polyval(np.polyfit(z, d, 1), z) for d in drift.T], axis=1)
    return float(np.linalg.norm(drift - line, axis=1).max())


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.folder is None:
        stack = align_cases.synthetic_stack(arguments.sections, arguments.size)
    else:
        stack = align_cases.load_stack(arguments.folder, arguments.axis)[: arguments.sections]
    case = align_cases.sheared(
        stack, amplitude=arguments.amplitude, waves=arguments.waves, seed=arguments.seed
    )
    height, width = stack.shape[1:]
    inside = [np.arange(EDGE_PX, n - EDGE_PX + 1, 10.0) for n in (height, width)]
    at = np.stack(np.meshgrid(*inside, indexing="ij"))
    mesh: dict[str, Any] = {"block_sections": arguments.block}
    if arguments.keep_drift:
        mesh |= {"steady_drift": False, "drift_sections": 0}
    flow = {"patch_px": arguments.patch} if arguments.patch else {}
    common = {"flow": flow, "run": {"report": False}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(case, folder / "in")
        cpu = aligned(folder / "in", folder / "blocks", {**common, "mesh": mesh})
        aligned(
            folder / "in", folder / "chain", {**common, "mesh": mesh | {"block_sections": 10**6}}
        )
        blocks, chain = (forward(folder / name) for name in ("blocks", "chain"))
        apart = [np.linalg.norm(blocks(z, at) - chain(z, at), axis=0) for z in range(len(stack))]
        scored = align_cases.score(case, at, blocks)
        again = measured_again(folder / "blocks", arguments.patch or 80, 20)
    before = align_cases.score(case, at, lambda _, points: points)
    return {
        "sections": len(stack),
        "before_px": {"median": float(np.median(before.residual)),
                      "drift": float(np.nanmax(before.drift_px))},
        "residual_px": {"median": float(np.median(scored.residual)),
                        "p95": float(np.quantile(scored.residual, 0.95))},
        "measured_again_px": again,
        "drift_px": float(np.nanmax(scored.drift_px)),
        "drift_about_a_line_px": detrended(scored.drift),
        "blocks_vs_chain_px": {"median": float(np.median(apart)),
                               "max": float(np.max(apart))},
        "cpu_s": round(cpu, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, nargs="?", help="an aligned stack of images")
    parser.add_argument("--size", type=int, default=256, help="px of the texture")
    parser.add_argument("--axis", type=int, default=0, help="of the stack, across the sections")
    parser.add_argument("--sections", type=int, default=250)
    parser.add_argument("--block", type=int, default=50)
    parser.add_argument("--patch", type=int, help="px; that of the preset by default")
    parser.add_argument("--amplitude", type=float, default=4.0, help="of the warps, px")
    parser.add_argument("--waves", type=float, default=1.0, help="of a warp over a section")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-drift", action="store_true", help="follow all flow blindly")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
