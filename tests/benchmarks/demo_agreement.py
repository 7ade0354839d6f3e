"""How far warpbeam and the published solution of the demo's real tiles disagree, px.

    python tests/benchmarks/demo_agreement.py --model affine --json

For each pair of tiles that overlap, a point of one tile is carried into the other by both
solutions; the distance of the two answers is averaged (median) over the overlap.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)
import numpy as np

GRID = 40


def reference(path: Path) -> dict[str, np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"m{i}{j}" for i in range(2) for j in range(3)]
    return {row["tile"]: np.array([float(row[n]) for n in names]).reshape(2, 3) for row in rows}


def distances(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], shape: tuple[int, int]
) -> list[float]:
    """Per overlapping pair the median distance of the two answers."""
    ends = [np.linspace(0, n - 1, GRID) for n in shape]
    points = np.stack([*(g.ravel() for g in np.meshgrid(*ends, indexing="ij")), np.ones(GRID**2)])
    square = {
        who: {name: np.vstack([m, [0, 0, 1]]) for name, m in maps.items()}
        for who, maps in (("ours", ours), ("theirs", theirs))
    }
    found = []
    for a, b in itertools.combinations(sorted(theirs), 2):
        if a[0] != b[0]:  # another section
            continue
        answers = [(np.linalg.inv(maps[b]) @ maps[a] @ points)[:2] for maps in square.values()]
        inside = ((answers[1] >= 0) & (answers[1] <= np.array(shape)[:, None] - 1)).all(axis=0)
        if inside.sum() >= 20:
            apart = np.linalg.norm(answers[0] - answers[1], axis=0)
            found.append(float(np.median(apart[inside])))
    return found


def run(model: str) -> dict[str, Any]:
    from warpbeam.pipelines import stitch
    from warpbeam.pipelines.config import StitchConfig
    from warpbeam.pipelines.demo import TILES

    with tempfile.TemporaryDirectory() as folder:
        config = StitchConfig.model_validate(
            {
                "tiles": str(TILES / "tiles.csv"),
                "output": str(Path(folder) / "run"),
                "solve": {"model": model},
                "run": {"report": False},
            }
        )
        outcome = stitch.run(config)
        placed = json.loads((Path(folder) / "run" / "transforms.json").read_text())
    ours = {name.rsplit("/", 1)[-1]: np.array(v["matrix"])[:2] for name, v in placed.items()}
    found = distances(ours, reference(TILES / "reference.csv"), (1040, 1376))
    return {
        "model": model,
        "links_kept": outcome.numbers["links_kept"],
        "residual_median_px": round(outcome.numbers["residual_median_px"], 4),
        "pairs": len(found),
        "agreement_median_px": round(float(np.median(found)), 3),
        "agreement_max_px": round(max(found), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    models = ("translation", "rigid", "affine")
    parser.add_argument("--model", choices=models, default="translation")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.model), indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
