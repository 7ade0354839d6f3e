"""`demo`: stitches real tiles that come with the package, and compares with a published solution.

warpbeam demo
warpbeam demo demo-output/

The tiles are two sections of mouse cortex by optical array tomography (`demo_tiles/`, see
NOTICE), with the positions of the stage; the published solution was made by Bill Karsh with
other software. Needs no network.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.pipelines import console
from warpbeam.pipelines.config import StitchConfig
from warpbeam.pipelines.job import versions
from warpbeam.pipelines.report.reading import Run, read_run
from warpbeam.pipelines.report.seams import SeamPainter
from warpbeam.pipelines.stitch import StitchJob
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.run_folder import RunFolder

TILES = Path(__file__).parent / "demo_tiles"
# Where two solutions are compared: this many points along each side of a tile.
_POINTS = 5

Points = np.ndarray[Any, Any]


def run(output: str) -> int:
    """Stitches the tiles, or finds that it was done, and prints what came out.

    Returns:
        The exit code: 0, or 1 if a tile could not be done.

    Raises:
        InputError: the folder holds something else.
    """
    job = StitchJob(StitchConfig(tiles=str(TILES / "tiles.csv"), output=output))
    if _is_done(job):
        sys.stdout.write(f"{output} already holds this demo, complete; nothing was done again\n")
    else:
        outcome = job.execute(watch=console.show_progress)
        if outcome.failures:
            sys.stdout.write(console.summary(outcome))
            return outcome.exit_code
    sys.stdout.write(console.table(measure(read_run(output))))
    return 0


def _is_done(job: StitchJob) -> bool:
    """Whether the folder holds the complete result of these tiles, settings and versions."""
    found = store.read_json(job.run_folder.summary)
    return found is not None and not found["failures"] and (
        (found["job"], found["config"], found["inputs"], found["versions"])
        == (job.name, job.config.model_dump(mode="json"), job.tiles.fingerprint(), versions())
    )  # fmt: skip


def measure(done: Run) -> dict[str, str]:
    """What the demo prints, by its name."""
    numbers = done.numbers
    painter = SeamPainter(done)
    kept = [painter.seam(row) for row in done.links if row["kept"]]
    ncc = [(seam.ncc_before, seam.ncc_after) for seam in kept]
    before, after = np.median(ncc, axis=0)
    apart = distances(done)
    return {
        "tiles": f"{numbers['tiles']} in {len(done.montages)} sections",
        "links kept": f"{numbers['links_kept']} of {numbers['links']}",
        "seam error": f"{numbers['stage_error_median_px']:.2f} px at stage positions, "
        f"{numbers['residual_median_px']:.3f} px solved (median)",
        "worst seam": f"{numbers['stage_error_max_px']:.2f} px at stage positions, "
        f"{numbers['residual_max_px']:.3f} px solved",
        "seam correlation": f"{before:.2f} at stage positions, {after:.2f} solved (median)",
        "published solution": f"{np.median(apart):.2f} px apart (median), {apart.max():.2f} px at "
        "most, after one affine map per section",
        "speed": f"{numbers['megavoxels_per_second']:.1f} Mpx/s from start to end, "
        f"{numbers['megavoxels']:.1f} Mpx",
        "volume": str(numbers["output"]),
        "report": RunFolder(done.folder.uri).report,
    }


def distances(done: Run) -> Points:
    """How far each point of the tiles lies from where the published solution has it, px.

    Which frame a solution is drawn in says nothing about it: one affine map per section,
    the best for all its points, takes ours into theirs first.
    """
    theirs = dict(_reference())
    found = []
    for tiles in done.montages.values():
        ours = np.concatenate([_grid(p.source.shape, p.matrix) for p in tiles])
        reference = np.concatenate([_grid(p.source.shape, theirs[p.source.key]) for p in tiles])
        design = np.column_stack([ours, np.ones(len(ours))])
        fitted = design @ np.linalg.lstsq(design, reference, rcond=None)[0]
        found.append(np.linalg.norm(fitted - reference, axis=1))
    return np.concatenate(found)


def _grid(shape: tuple[int, ...], matrix: Any) -> Points:
    """Points all over a tile, in the world of `matrix`."""
    along = [np.linspace(0, n - 1, _POINTS) for n in shape]
    points = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, len(shape))
    return affine.apply(affine.homogeneous(matrix), points)


def _reference() -> Iterator[tuple[TileKey, list[list[float]]]]:
    with (TILES / "reference.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            matrix = [[float(row[f"m{i}{j}"]) for j in range(3)] for i in range(2)]
            yield TileKey(0, int(row["section"]), row["tile"]), matrix
