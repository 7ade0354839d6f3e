"""Bent tiles: seams at the solved positions and after the tiles were bent, link by link."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence

from warpbeam.pipelines.report import pictures
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Row, Run
from warpbeam.pipelines.report.seams import SHOWN_PX, Seam, SeamPainter, paint
from warpbeam.transforms.storage.errors import InputError

_MOST_SEAMS = 3
_MOST_ROWS = 12
_CAPTIONS = ("solved", "solved, difference", "bent", "bent, difference")

_log = logging.getLogger(__name__)


def part(run: Run) -> Part | None:
    """The links whose points disagreed most; None where tiles were not bent."""
    rows = [row for row in run.links if row.get("residual_elastic_px") is not None]
    if not rows:
        return None
    text = (
        f"{run.numbers['tiles_bent']} tiles were bent, by {run.numbers['bent_median_px']:.1f} px "
        f"at most (median; {run.numbers['bent_max_px']:.1f} px the most bent one), so that "
        f"{run.numbers['points_kept']} of {run.numbers['points']} points of their overlaps meet."
    )
    if run.numbers["tiles_folded"]:
        text += f" {run.numbers['tiles_folded']} tiles would have folded, and stayed straight."
    return Part("bends", "Bends", text, _groups(run, rows), [_table(rows)])


def _groups(run: Run, rows: Sequence[Row]) -> list[Group]:
    worst = heapq.nlargest(_MOST_SEAMS, rows, key=lambda r: r["flow_px"])
    try:
        painter = SeamPainter(run)
        return [_group(painter.bent_seam(row)) for row in worst]
    except (InputError, OSError) as error:
        # A report is often made anew when the tiles have long been moved away.
        _log.warning("bent seams are left out, because a tile cannot be read: %s", error)
        return []


def _group(seam: Seam) -> Group:
    row = seam.row
    shown = [
        Picture(pictures.png(p), caption, SHOWN_PX * p.shape[1] // max(p.shape[:2]), raw=True)
        for p, caption in zip(paint(seam), _CAPTIONS, strict=True)
    ]
    text = (
        f"Points {row['flow_px']:.2f} px apart where the tiles are straight, "
        f"{row['residual_elastic_px']:.2f} px where they are bent; correlation over the overlap "
        f"{seam.ncc_before:.2f}, then {seam.ncc_after:.2f}."
    )
    return Group(shown, f"{row['tile_a']} and {row['tile_b']}", text)


def _table(rows: Sequence[Row]) -> Table:
    head = ("time", "section", "tile", "tile", "points", "straight, px", "bent, px")
    worst = heapq.nlargest(_MOST_ROWS, rows, key=lambda r: r["residual_elastic_px"])
    cells = [
        (
            r["time"], r["section"], r["tile_a"], r["tile_b"], r["points"],
            f"{r['flow_px']:.3g}", f"{r['residual_elastic_px']:.3g}",
        )
        for r in worst
    ]  # fmt: skip
    return Table(head, cells)
