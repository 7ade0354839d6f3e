"""How the registration of two volumes went, in a few plain sentences."""

from __future__ import annotations

from warpbeam.pipelines.report.reading import Run
from warpbeam.pipelines.report.verdict import Verdict, count, failures

_MOST_NAMED = 12


def judge_volumes(run: Run) -> Verdict:
    """The verdict on a run of `register`."""
    trouble, numbers = failures(run), run.numbers
    if not numbers:
        return Verdict("incomplete", tuple(trouble))
    words = f"{count(numbers['chunks'], 'chunk')} registered."
    if numbers["left_median_px"] is not None:
        words += (
            f" A last look would move them by {numbers['left_median_px']:.2g} px more (median), "
            f"and the volumes correlate at {numbers['ncc']:.3f}."
        )
    look, poor = [], numbers["poor_chunks"]
    if poor:
        names = "; ".join(poor[:_MOST_NAMED])
        more = f" and {len(poor) - _MOST_NAMED} more" if len(poor) > _MOST_NAMED else ""
        look.append(f"{count(len(poor), 'chunk')} matched poorly: {names}{more}.")
    if numbers["jacobian_least"] <= 0:
        look.append("The map folds.")
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, words, *look))
