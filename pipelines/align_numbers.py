"""What `align` measured: the summary, and `sections.parquet`."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.pipelines import fusing
from warpbeam.pipelines.graph import JobGraph
from warpbeam.transforms.align.frame import load_frame
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.run_folder import RunFolder

_OF_MESHES = ("status", "references", "known", "cut_nodes", "residual_px")
_SOLVED = ("start", "regular", "stiffened")


def numbers(graph: JobGraph, run: RunFolder, seconds: float) -> dict[str, Any]:
    """Writes the table of sections and sums it up; nothing before there is a volume."""
    if not store.exists(run.canvas):
        return {}
    rows = _rows(graph, run)
    tables.write(run.table("sections"), rows)
    residual = [r["residual_px"] for r in rows if r["residual_px"] is not None]
    odd = [r["section"] for r in rows if r["status"] not in _SOLVED]
    missing = [r["section"] for r in rows if r["status"] == "missing"]
    return {
        "sections": len(rows) - len(missing),
        "missing_sections": missing,
        "skipped_sections": [s for s in odd if s not in missing],
        **_redone(rows),
        "folded_cells": sum(r["folded"] or 0 for r in rows),
        "flow_kept_median": _median(
            [r["known"] for r in rows if r["known"] is not None and r["status"] != "start"]
        ),
        "residual_median_px": _median(residual),
        "residual_max_px": max(residual, default=None),
        **fusing.numbers(graph, run, seconds, stage="render"),
    }


def _redone(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many sections were aligned again by themselves, if any, and how hard they are held."""
    steps = [r["held_step_px"] for r in rows if r["redone"] is not None]
    return {"redone_sections": len(steps), "held_step_px": max(steps)} if steps else {}


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _rows(graph: JobGraph, run: RunFolder) -> list[dict[str, Any]]:
    """A row per section number, missing ones included."""
    frame = load_frame(run)
    files = {p.source.key.section: p.source.images[0] for p in load_placement(run)}
    meshes = _by_section(graph, "join")
    settled = _by_section(graph, "settle")
    cleaned = {key[0]: record for key, record in graph.ledger("clean").records()}
    solved = _solved_elsewhere(settled)
    rows = []
    for section in range(frame.first, frame.first + frame.depth):
        mesh, final = meshes.get(section, {}), settled.get(section, {})
        status = mesh.get("status", "unreadable" if section in files else "missing")
        rows.append(
            {
                "section": section,
                "file": files[section][0] if section in files else None,
                "status": status,
                "references": mesh.get("references", []),
                "known": cleaned[section]["any"] if section in cleaned else None,
                "cut_nodes": cleaned[section]["cut"] if section in cleaned else None,
                "residual_px": mesh.get("residual_px"),
                "strain": final.get("strain"),
                "folded": final.get("folded"),
                "shift_y_px": final.get("shift_y_px"),
                "shift_x_px": final.get("shift_x_px"),
                "redone": final.get("redone"),
                "held_step_px": final.get("held_step_px"),
                **solved.get(section, {}),
            }
        )
    return rows


def _solved_elsewhere(settled: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """How sections came to their meshes whose maps are those of another run."""
    found = {}
    for run in {row["redone"] for row in settled.values()} - {None}:
        for row in tables.read(RunFolder(run).table("sections")):
            if settled.get(row["section"], {}).get("redone") == run:
                found[row["section"]] = {name: row[name] for name in _OF_MESHES}
    return found


def _by_section(graph: JobGraph, stage: str) -> dict[int, dict[str, Any]]:
    records = graph.ledger(stage).records()
    return {row["section"]: row for _, record in records for row in record["sections"]}
