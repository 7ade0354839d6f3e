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
        "folded_cells": sum(r["folded"] or 0 for r in rows),
        "flow_kept_median": _median(
            [r["known"] for r in rows if r["known"] is not None and r["status"] != "start"]
        ),
        "residual_median_px": _median(residual),
        "residual_max_px": max(residual, default=None),
        **fusing.numbers(graph, run, seconds, stage="render"),
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _rows(graph: JobGraph, run: RunFolder) -> list[dict[str, Any]]:
    """A row per section number, missing ones included."""
    frame = load_frame(run)
    files = {p.source.key.section: p.source.images[0] for p in load_placement(run)}
    meshes = _by_section(graph, "join")
    settled = _by_section(graph, "settle")
    cleaned = {key[0]: record for key, record in graph.ledger("clean").records()}
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
            }
        )
    return rows


def _by_section(graph: JobGraph, stage: str) -> dict[int, dict[str, Any]]:
    records = graph.ledger(stage).records()
    return {row["section"]: row for _, record in records for row in record["sections"]}
