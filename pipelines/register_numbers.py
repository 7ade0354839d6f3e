"""What `register` measured: the summary, and `chunks.parquet`."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.pipelines import fusing
from warpbeam.pipelines.graph import JobGraph
from warpbeam.transforms.register.frame import Frame
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.run_folder import RunFolder

# What a chunk needs to be good; poor ones are named.
_LEAST_KNOWN = 0.05
_MOST_LEFT_PX = 0.5
# Of a coarse map that is drawn as it is.
_NOTHING_SOLVED = {"matches": 0, "rejected": 0, "jacobian_least": 1.0}


def numbers(graph: JobGraph, run: RunFolder, frame: Frame, seconds: float) -> dict[str, Any]:
    """Writes the table of chunks and sums it up; nothing before there is a volume."""
    if not store.exists(run.canvas):
        return {}
    rows = [_row(key, record) for key, record in graph.ledger("quality").records()]
    tables.write(run.table("chunks"), rows)
    start = _only(graph, "coarse")
    solved = _only(graph, frame.last_stage) if frame.passes else _NOTHING_SOLVED
    maps = _only(graph, "maps")
    poor = [row["chunk"] for row in rows if row["poor"]]
    return {
        "start_score": start["score"],
        "coarse_spread_px": start["spread_px"],
        "chunks": len(rows),
        "poor_chunks": poor,
        "chunks_left_out": sum(row["left_out"] for row in rows),
        "matches": solved["matches"],
        "rejected_fraction": solved["rejected"] / max(solved["matches"], 1),
        **_of_dense(solved),
        "left_median_px": _median(rows, "left_median_px"),
        "left_p95_px": _median(rows, "left_p95_px"),
        "ncc_before": _median(rows, "ncc_before"),
        "ncc": _median(rows, "ncc"),
        "ncc_ceiling": _median(rows, "ncc_ceiling"),
        "held_out_px": _median(rows, "held_out_px"),
        "jacobian_least": solved["jacobian_least"],
        "inverse_error_px": maps["inverse_error_px"],
        "map_bytes_per_voxel": maps["bytes_per_voxel"],
        **fusing.numbers(graph, run, seconds, stage="render"),
    }


def _row(key: tuple[Any, ...], record: dict[str, Any]) -> dict[str, Any]:
    z, y, x = record["start_voxel"]
    left = record["left_median_px"]
    poor = not record["left_out"] and (
        record["known"] < _LEAST_KNOWN or left is None or left > _MOST_LEFT_PX
    )
    named = {"chunk": ",".join(map(str, key[1])), "z": z, "y": y, "x": x, "poor": bool(poor)}
    measured = {k: v for k, v in record.items() if k not in ("start_voxel", "bytes_read")}
    return named | measured


def _of_dense(solved: dict[str, Any]) -> dict[str, Any]:
    """What only a dense engine has."""
    names = ("left_out", "disagreement_median_px", "disagreement_p95_px")
    return {name: solved[name] for name in names if name in solved}


def _only(graph: JobGraph, stage: str) -> dict[str, Any]:
    ((_, record),) = graph.ledger(stage).records()
    return record


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.median(values)) if values else None
