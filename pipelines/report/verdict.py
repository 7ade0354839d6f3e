"""The outcome in a few plain sentences, honest about what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from warpbeam.pipelines.report.reading import Run

# A seam that is off by this much can be seen.
_VISIBLE_PX = 1.0


@dataclass(frozen=True)
class Verdict:
    """How it went.

    Attributes:
        level: `good`, `look` (something deserves a look) or `incomplete` (something failed).
        sentences: the most important first.
    """

    level: str
    sentences: tuple[str, ...]


def judge(run: Run) -> Verdict:
    """The verdict on a run."""
    trouble = failures(run)
    look = [*_rejected(run), *_islands(run), *_visible(run), *_unbent(run), *_unsettled(run)]
    fine = _agreement(run) if run.links else _placed_as_given(run)
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, *fine, *look))


def count(n: int, noun: str) -> str:
    """`1 link`, `2 links`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def failures(run: Run) -> list[str]:
    """What failed, in a sentence; empty where nothing did."""
    if not run.failures:
        return []
    stages = sorted({f["stage"] for f in run.failures})
    return [
        f"{count(len(run.failures), 'key')} failed ({', '.join(stages)}): what depends on "
        f"{'it' if len(run.failures) == 1 else 'them'} is missing, the rest is complete."
    ]


def _agreement(run: Run) -> list[str]:
    kept, links = [r for r in run.links if r["kept"]], len(run.links)
    if not kept:
        return ["No link was believed: every tile lies where the stage has it."]
    stage, residual = (
        [r[name] for r in kept if r[name] is not None] for name in ("stage_error_px", "residual_px")
    )
    off = f"the stage was off by {median(stage):.1f} px (median; {max(stage):.1f} px at most)"
    which = f"All {links} links" if len(kept) == links else f"{len(kept)} of {links} links"
    if len(kept) > len(run.tiles) - _parts(run):
        return [f"{which} agree to {max(residual):.2g} px (worst); {off}."]
    were = "The only link was" if links == 1 else f"{which} were"
    return [
        f"{were} kept; {off}. Links without a loop check one another nowhere: look at the seams."
    ]


def _parts(run: Run) -> int:
    return len({(r["time"], r["section"], r["component"]) for r in run.tiles})


def _placed_as_given(run: Run) -> list[str]:
    tiles, share = len(run.placed), run.numbers.get("covered_fraction")
    covered = f" They cover {100 * share:.1f} % of the canvas." if share is not None else ""
    return [f"{count(tiles, 'tile')} fused where the tile list has them.{covered}"]


def _unbent(run: Run) -> list[str]:
    if run.numbers.get("points") != 0:
        return []
    return ["No point of any overlap was believed, so no tile bends: look at elastic.patch_px, "
            "elastic.search_px and elastic.min_peak_ratio."]  # fmt: skip


def _unsettled(run: Run) -> list[str]:
    meshes = run.numbers.get("meshes_unsettled", 0)
    if not meshes:
        return []
    return [f"The meshes of {count(meshes, 'montage')} did not settle: their seams may be better "
            "with other settings of elastic."]  # fmt: skip


def _rejected(run: Run) -> list[str]:
    rejected = [r for r in run.links if not r["kept"]]
    if not rejected:
        return []
    reasons: dict[str, int] = {}
    for row in rejected:
        why = row["reason"] or "against the others"
        reasons[why] = reasons.get(why, 0) + 1
    words = ", ".join(f"{n} {why}" for why, n in sorted(reasons.items(), key=lambda i: -i[1]))
    verb = "was" if len(rejected) == 1 else "were"
    return [f"{count(len(rejected), 'link')} {verb} rejected ({words})."]


def _islands(run: Run) -> list[str]:
    tiles = len(run.islands)
    if not tiles:
        return []
    rows = (r for r in run.tiles if r["island"])
    islands = len({(r["time"], r["section"], r["component"]) for r in rows})
    verb = "lies" if tiles == 1 else "lie"
    return [
        f"{count(tiles, 'tile')} in {count(islands, 'island')} {verb} where the stage says, "
        "because no believed link joins them to the rest."
    ]


def _visible(run: Run) -> list[str]:
    kept = [r for r in run.links if r["kept"] and (r["residual_px"] or 0) > _VISIBLE_PX]
    if not kept:
        return []
    worst = max(kept, key=lambda r: r["residual_px"])
    return [
        f"{count(len(kept), 'seam')} may be visible (more than {_VISIBLE_PX:g} px), "
        f"the worst between {worst['tile_a']} and {worst['tile_b']}."
    ]
