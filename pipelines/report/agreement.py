"""Do the links agree, and were they better than chance: two histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.pipelines.report import charts
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Row, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A link that was measured exactly would have no place on a logarithmic axis.
_SMALLEST_PX = 1e-3
_BINS = 32
_MOST_REJECTED_SHOWN = 20


def part(run: Run) -> Part | None:
    """Histograms of residuals and scores, and the rejected links; None without links."""
    if not run.links:
        return None
    made, (left, right) = charts.figure(9.6, 3.1, columns=2)
    _residuals(left, run)
    _scores(right, run)
    caption = (
        "Left: distance between what a link says and where the tiles lie, at the positions of "
        "the stage and at the solved ones. Right: how far each link stands out from chance; "
        "the null pairs strips of the same mosaic that cannot match."
    )
    rejected = [r for r in run.links if not r["kept"]]
    rejected.sort(key=lambda r: -r["score"])
    return Part(
        "links",
        "Links",
        groups=[Group([Picture(charts.png(made), caption)])],
        tables=[_rejected_table(rejected)] if rejected else [],
        text=_shown(len(rejected)),
    )


def _shown(rejected: int) -> str:
    if rejected <= _MOST_REJECTED_SHOWN:
        return ""
    return (
        f"The {_MOST_REJECTED_SHOWN} of {rejected} rejected links with the highest scores are "
        "listed; all are in links.parquet."
    )


def _column(rows: list[Row], name: str) -> np.ndarray[Any, Any]:
    return np.array([r[name] for r in rows if r[name] is not None], float)


def _residuals(axes: Axes, run: Run) -> None:
    kept = [r for r in run.links if r["kept"]]
    before, after = (_column(kept, name) for name in ("stage_error_px", "residual_px"))
    clipped = [np.maximum(v, _SMALLEST_PX) for v in (before, after)]
    every = np.concatenate([*clipped, [_SMALLEST_PX * 10]])
    bins = np.geomspace(every.min() * 0.8, every.max() * 1.25, _BINS).tolist()
    names = ("at stage positions", "solved")
    for values, colour, name in zip(clipped, (charts.ORANGE, charts.BLUE), names, strict=True):
        axes.hist(values, bins=bins, color=colour, alpha=0.85, label=name)
    charts.logarithmic(axes)
    charts.label(axes, x="distance, px", y="links kept", title="Error of the links")
    charts.legend(axes)


def _scores(axes: Axes, run: Run) -> None:
    kept = _column([r for r in run.links if r["kept"]], "score")
    rejected = _column([r for r in run.links if not r["kept"]], "score")
    groups = [
        (np.array(run.nulls, float), charts.PALE, "null"),
        (rejected, charts.RED, "rejected"),
        (kept, charts.BLUE, "kept"),
    ]
    groups = [(v[v > 0], colour, name) for v, colour, name in groups if (v > 0).any()]
    if not groups:
        return
    every = np.concatenate([v for v, _, _ in groups])
    bins = np.geomspace(every.min() * 0.9, every.max() * 1.1, _BINS).tolist()
    for values, colour, name in groups:
        share = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=bins, weights=share, color=colour, alpha=0.85, label=name)
    threshold = run.numbers.get("score_threshold")
    if threshold is not None:
        axes.axvline(threshold, color=charts.INK, lw=1, ls="--", label=f"limit {threshold:.1f}")
    charts.logarithmic(axes)
    charts.label(axes, x="score", y="share of each group", title="Score against chance")
    charts.legend(axes)


def _rejected_table(rows: list[Row]) -> Table:
    head = ("time", "section", "tile", "tile", "score", "stage error, px", "residual, px", "why")
    cells = [
        (
            r["time"], r["section"], r["tile_a"], r["tile_b"], f"{r['score']:.1f}",
            _px(r["stage_error_px"]), _px(r["residual_px"]), r["reason"] or "against the others",
        )
        for r in rows[:_MOST_REJECTED_SHOWN]
    ]  # fmt: skip
    return Table(head, cells)


def _px(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
