"""How visible seams are after flat field and gain were estimated: steps in brightness.

    python tests/benchmarks/seam_steps.py --vignette 0.3 --gain 0.05 --json

The job stitches noisy, shaded tiles. Its positions, flat field and gains are then applied to
the same tiles without noise, and the result is compared with tiles that were never shaded:
the ratio of the two is 1 where the correction is perfect. A step is the difference of that
ratio between the two sides of an overlap, on stretches of 64 px along it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)
import cv2
import numpy as np
from montage_cases import Case, Difficulty, make_case

STRETCH, BAND = 64, 12


def write(case: Case, folder: Path) -> Path:
    lines = ["file,tile,y,x"]
    for i, (tile, (y, x)) in enumerate(zip(case.tiles, case.nominal, strict=True)):
        cv2.imwrite(str(folder / f"{i}.png"), tile)
        lines.append(f"{i}.png,{i},{y},{x}")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return folder / "tiles.csv"


def fused(case: Case, run: Path | None, matrices: list[Any]) -> np.ndarray:
    """The tiles as float32 on one canvas, corrected as a run found it."""
    from warpbeam.kernels.fuse.render import render
    from warpbeam.kernels.fuse.view import TileView
    from warpbeam.kernels.geometry.box import Box
    from warpbeam.kernels.shading.correction import Shading
    from warpbeam.transforms.keys import TileKey
    from warpbeam.transforms.shading import ShadingReader
    from warpbeam.transforms.storage.run_folder import RunFolder

    whole = Box.of_shape(case.tiles.shape[1:])
    reader = None if run is None else ShadingReader(RunFolder(str(run)))
    views = [
        TileView(
            tile, whole, whole.shape, matrix,
            shading=Shading() if reader is None else reader.of(TileKey(0, 0, str(i)), 0),
        )
        for i, (tile, matrix) in enumerate(zip(case.tiles, matrices, strict=True))
    ]  # fmt: skip
    stop = np.ceil([m[:2, 2] for m in matrices]).max(axis=0).astype(int) + whole.shape
    box = Box((0, 0), tuple(stop.tolist()))
    return render(box, views, mode="linear", interpolation="linear", dtype=np.dtype(np.float32))


def steps(image: np.ndarray, clean: np.ndarray, matrices: list[Any], case: Case) -> np.ndarray:
    """The change of `image / clean` across each overlap, of its median, stretch by stretch."""
    side = case.tiles.shape[1]
    found, ratios = [], []
    for a, b in case.links:
        low, high = matrices[a][:2, 2], matrices[b][:2, 2]
        axis = int(np.argmax(np.abs(high - low)))
        along = 1 - axis
        before, after = round(high[axis]) - 4, round(low[axis] + side) + 4
        first = round(max(low[along], high[along])) + STRETCH
        last = round(min(low[along], high[along])) + side - STRETCH
        for start in range(first, last - STRETCH, STRETCH):
            cut = [slice(start, start + STRETCH)] * 2
            sides = []
            for first_px in (before - BAND, after):
                cut[axis] = slice(first_px, first_px + BAND)
                sides.append(float(image[tuple(cut)].sum() / clean[tuple(cut)].sum()))
            ratios += sides
            found.append(abs(sides[1] - sides[0]))
    return np.array(found) / np.median(ratios)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from warpbeam.pipelines import stitch
    from warpbeam.pipelines.config import StitchConfig

    def case(noise: float, vignette: float, gain: float) -> Case:
        difficulty = Difficulty(noise, vignette, gain, 0.0)
        return make_case(difficulty, arguments.canvas, arguments.grid, 512, arguments.seed)

    noisy = case(arguments.noise, arguments.vignette, arguments.gain)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "run"
        config = StitchConfig.model_validate(
            {"tiles": str(write(noisy, folder)), "output": str(output), "run": {"report": False}}
        )
        stitch.run(config)
        placed = json.loads((output / "transforms.json").read_text())
        matrices = [
            np.vstack([np.array(placed[str(i)]["matrix"])[:2], [0, 0, 1]])
            for i in range(len(noisy.tiles))
        ]
        shift = np.min([m[:2, 2] for m in matrices], axis=0)
        for matrix in matrices:
            matrix[:2, 2] -= shift
        clean = fused(case(0, 0, 0), None, matrices)
        ratios = {
            "corrected": fused(case(0, arguments.vignette, arguments.gain), output, matrices),
            "as_it_came": fused(case(0, arguments.vignette, arguments.gain), None, matrices),
        }
    result: dict[str, Any] = {"tiles": len(noisy.tiles)}
    for kind, image in ratios.items():
        found = 100 * steps(image, clean, matrices, noisy)
        result[kind] = {
            "median_percent": round(float(np.median(found)), 3),
            "p99_percent": round(float(np.quantile(found, 0.99)), 3),
            "max_percent": round(float(found.max()), 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--canvas", default="em", help="em, sparse, or an image file or folder")
    parser.add_argument("--grid", type=int, default=8, help="tiles on each side")
    parser.add_argument("--noise", type=float, default=12)
    parser.add_argument("--vignette", type=float, default=0.3)
    parser.add_argument("--gain", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
