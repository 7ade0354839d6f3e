"""The report of a run: one HTML file with what a person wants to check before trusting it.

    warpbeam report out/

It is written at the end of every run, and again by this command, from what the run's
folder holds alone. Local folders and buckets are the same; no part of it reads more than a
picture needs.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

from warpbeam.pipelines.report import (
    agreement,
    elastic,
    fused,
    greys,
    layout,
    page,
    plate,
    rounds,
    seams,
    solid,
    stack,
    volumes,
)
from warpbeam.pipelines.report.page import Part, Table
from warpbeam.pipelines.report.reading import Run, read_run
from warpbeam.pipelines.report.stack_verdict import judge_stack
from warpbeam.pipelines.report.verdict import judge
from warpbeam.pipelines.report.volumes_verdict import judge_volumes
from warpbeam.transforms.storage import store

_PARTS: tuple[tuple[str, Callable[[Run], Part | None]], ...] = (
    ("Layout", layout.part),
    ("Links", agreement.part),
    ("Seams", seams.part),
    ("Bends", elastic.part),
    ("Result", fused.part),
    ("Coverage", fused.coverage_part),
    ("Grey values", greys.part),
)
_PARTS_OF_A_STACK: tuple[tuple[str, Callable[[Run], Part | None]], ...] = (
    ("Sections", stack.curves_part),
    ("Before and after", stack.slices_part),
    ("Flow", stack.flow_part),
    ("Deformation", stack.deformation_part),
    ("Result", fused.part),
)
_PARTS_OF_A_PAIR: tuple[tuple[str, Callable[[Run], Part | None]], ...] = (
    ("Before and after", volumes.overlays_part),
    ("Deformation", volumes.deformation_part),
    ("Chunks", volumes.chunks_part),
    ("Result", fused.part),
)
_PARTS_OF_A_PLATE: tuple[tuple[str, Callable[[Run], Part | None]], ...] = (
    ("Wells", plate.wells_part),
    ("Objects", plate.objects_part),
    ("Pictures", plate.pictures_part),
)
_PARTS_OF_OBJECTS: tuple[tuple[str, Callable[[Run], Part | None]], ...] = (
    ("Slices", solid.slices_part),
    ("Objects", solid.objects_part),
    ("Links", solid.links_part),
)
_MOST_FAILURES = 50

# What a job's page has, where it is not a montage.
_KINDS = {
    "align": (_PARTS_OF_A_STACK, judge_stack),
    "register": (_PARTS_OF_A_PAIR, judge_volumes),
    "register_rounds": ((("Rounds", rounds.rounds_part),), rounds.judge_rounds),
    "segment": (_PARTS_OF_A_PLATE, plate.judge_plate),
    "segment_volume": (_PARTS_OF_OBJECTS, solid.judge_objects),
}

_log = logging.getLogger(__name__)


def write(run_uri: str | os.PathLike[str]) -> str:
    """Writes `report.html` into a run's folder.

    Returns:
        Its address.

    Raises:
        InputError: there is no run.
    """
    run = read_run(run_uri)
    makers, verdict = _KINDS.get(run.summary["job"], (_PARTS, judge))
    parts = [part for name, make in makers if (part := _made(name, make, run))]
    text = page.render(
        title=f"warpbeam {run.summary['job'].replace('_', ' ')}",
        place=run.folder.uri,
        verdict=verdict(run),
        numbers=_numbers(run),
        failures=_failures(run),
        parts=parts,
        config=json.dumps(run.summary["config"], indent=2),
        versions=run.summary["versions"],
        inputs=run.summary["inputs"],
    )
    store.write_bytes(run.folder.report, text.encode())
    return run.folder.report


def _made(name: str, make: Callable[[Run], Part | None], run: Run) -> Part | None:
    """A part of the page. One that cannot be drawn says so and leaves the others alone."""
    try:
        return make(run)
    except Exception as error:
        _log.warning("the part %r of the report could not be drawn", name, exc_info=True)
        cause = f"This part could not be drawn: {type(error).__name__}: {error}"
        return Part(name.lower().replace(" ", "-"), name, cause)


def _numbers(run: Run) -> list[tuple[str, str]]:
    shown = {**run.numbers, "seconds": run.summary["seconds"]}
    return [(_words(name), _text(value)) for name, value in shown.items() if value is not None]


def _words(name: str) -> str:
    for ending, unit in (("_px", ", px"), ("_tczyx", " (t, c, z, y, x)")):
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " ") + unit
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " × ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _failures(run: Run) -> tuple[Table, int] | None:
    if not run.failures:
        return None
    rows = [
        (f["stage"], json.dumps(f["key"]), f["error"], f["cause"])
        for f in run.failures[:_MOST_FAILURES]
    ]
    hidden = len(run.failures) - len(rows)
    return Table(("stage", "key", "error", "cause"), rows), hidden
