"""How the alignment of a stack went, in a few plain sentences."""

from __future__ import annotations

from warpbeam.pipelines.report.reading import Run
from warpbeam.pipelines.report.verdict import Verdict, count, failures

_MOST_NAMED = 12
_MOST_HELD_PX = 1.0  # between neighbours, so that both ends of a range fit


def judge_stack(run: Run) -> Verdict:
    """The verdict on a run of `align`."""
    trouble = failures(run)
    numbers = run.numbers
    if not numbers:
        return Verdict("incomplete", tuple(trouble))
    look = [
        *_named(numbers["skipped_sections"], "could not be aligned by their own flow"),
        *_named(numbers["missing_sections"], "are missing"),
    ]
    if numbers.get("held_step_px", 0) > _MOST_HELD_PX:
        look.append(
            "Sections that were aligned again by themselves were moved apart by up to "
            f"{numbers['held_step_px']:.2g} px between neighbours, so that their ends fit."
        )
    if numbers["folded_cells"]:
        look.append(f"The maps fold in {count(numbers['folded_cells'], 'cell')} of the lattice.")
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, _aligned(run), *look))


def _aligned(run: Run) -> str:
    numbers = run.numbers
    words = f"{count(numbers['sections'], 'section')} aligned."
    if numbers["residual_median_px"] is None:
        return words
    return (
        f"{words} Flow scatters about the meshes by {numbers['residual_median_px']:.2g} px "
        f"(median of the sections; {numbers['residual_max_px']:.2g} px at most)."
    )


def _named(sections: list[int], what: str) -> list[str]:
    if not sections:
        return []
    names = ", ".join(map(str, sections[:_MOST_NAMED]))
    more = f" and {len(sections) - _MOST_NAMED} more" if len(sections) > _MOST_NAMED else ""
    return [f"{count(len(sections), 'section')} {what}: {names}{more}."]
