"""The pictures of the README, from a run of the demo:

warpbeam demo && python tests/benchmarks/readme_pictures.py demo-output
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: F401

from warpbeam.pipelines.report import layout, pictures, seams
from warpbeam.pipelines.report.reading import Run, read_run

FOLDER = ROOT / ".pictures"
SEAMS, SIDE = 3, 128
ZOOM = 2
MARGIN = 8
LONGEST_PX = 460
LAYOUT_PX = 540


def seam_panel(run: Run) -> bytes:
    """Composites: above at the positions of the stage, below as solved."""
    painter = seams.SeamPainter(run)
    painted = [seams.paint(painter.seam(row)) for row in seams.choose(run)[:SEAMS]]
    side = min(SIDE, *(min(p[0].shape[:2]) for p in painted))
    rows = []
    for composite in (0, 2):
        enlarged = [cv2.resize(p[composite][:side, :side], None, fx=ZOOM, fy=ZOOM, interpolation=0)
                    for p in painted]  # fmt: skip
        rows.append(_joined(enlarged, axis=1))
    return pictures.png(_joined(rows, axis=0))


def _joined(images: list[np.ndarray], axis: int) -> np.ndarray:
    gap = list(images[0].shape)
    gap[axis] = MARGIN
    white = np.full(gap, 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, white)][:-1], axis)


def overview(run: Run) -> bytes:
    """The layout of the first montage, and its fused image."""
    key = next(iter(run.montages))
    drawn = cv2.imdecode(np.frombuffer(layout.draw(run, key, 0.0), np.uint8), cv2.IMREAD_COLOR)
    drawn = np.rint(pictures.shrink(drawn, LAYOUT_PX)).astype(np.uint8)
    plane = pictures.read_plane(run.folder.volume, (0, 0, 0), LONGEST_PX)
    grey = pictures.grey(plane.values, pictures.stretch(plane.values))
    height = max(drawn.shape[0], grey.shape[0])
    fused = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    sides = [_centred(side, height) for side in (drawn, fused)]
    joined = np.concatenate([sides[0], _white(height, MARGIN), sides[1]], axis=1)
    return pictures.png(joined[..., ::-1])


def _white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _centred(image: np.ndarray, height: int) -> np.ndarray:
    above = (height - len(image)) // 2
    below = height - len(image) - above
    width = image.shape[1]
    return np.concatenate([_white(above, width), image, _white(below, width)])


def main() -> None:
    run = read_run(sys.argv[1])
    FOLDER.mkdir(exist_ok=True)
    for name, draw in (("seams", seam_panel), ("overview", overview)):
        path = FOLDER / f"{name}.png"
        path.write_bytes(draw(run))
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
