"""Many volumes that were registered onto one: how each of them went."""

from __future__ import annotations

from warpbeam.pipelines.report.page import Part, Table
from warpbeam.pipelines.report.reading import Run
from warpbeam.pipelines.report.verdict import Verdict, count, failures
from warpbeam.transforms.storage import store

_HEAD = ("round", "NCC before", "NCC", "left, px", "poor chunks", "failed keys", "report")


def rounds_part(run: Run) -> Part:
    """A row per round that was ever done."""
    rows = []
    for name in run.summary["config"]["rounds"]:
        found = store.read_json(store.join(run.folder.uri, name, "run.json"))
        if found is None:
            rows.append((name, "", "", "", "", "", "not done yet"))
            continue
        numbers = found["numbers"]
        measured = (_text(numbers.get(n)) for n in ("ncc_before", "ncc", "left_median_px"))
        poor = len(numbers.get("poor_chunks", ()))
        rows.append((name, *measured, poor, len(found["failures"]), f"{name}/report.html"))
    return Part("rounds", "Rounds", "", tables=[Table(_HEAD, rows)])


def judge_rounds(run: Run) -> Verdict:
    """The verdict on all of them."""
    trouble, numbers = failures(run), run.numbers
    poor = [n.removesuffix(".poor_chunks") for n in numbers if n.endswith(".poor_chunks")]
    bad = [name for name in poor if numbers[f"{name}.poor_chunks"]]
    words = f"{count(numbers['rounds'], 'round')} registered."
    look = [f"Some chunks matched poorly in {', '.join(bad)}."] if bad else []
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, words, *look))


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
