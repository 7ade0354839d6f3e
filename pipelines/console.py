"""What the jobs say on a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from warpbeam.pipelines.job import Command, Failure, Outcome
from warpbeam.pipelines.settings import load, parse_settings, read_yaml
from warpbeam.transforms import progress
from warpbeam.transforms.storage.errors import InputError

# Module and class of each kind of job; the one that is wanted is imported.
_KINDS = {
    "stitch": ("stitch", "StitchJob"),
    "align": ("align", "AlignJob"),
    "apply_stack": ("align_apply", "ApplyStackJob"),
    "fuse": ("fuse", "FuseJob"),
    "register": ("register", "RegisterJob"),
    "register_rounds": ("register_rounds", "RoundsJob"),
    "apply": ("apply", "ApplyJob"),
    "segment": ("segment", "SegmentJob"),
    "segment_volume": ("segment_volume", "SegmentVolumeJob"),
}
_MOST_FAILURES_SHOWN = 20
_LOG_EVERY_S = 10.0


def make_job(
    name: str,
    source: str,
    output: str | None,
    settings: Sequence[str],
    *,
    moving: str | None = None,
) -> Command[Any]:
    """A job from what stands on the command line.

    Raises:
        InputError: something that the user gave is wrong.
    """
    given = parse_settings(settings)
    path = source if source.endswith((".yaml", ".yml")) else None
    if name == "segment" and _asks_for_a_volume(source, path):
        name = "segment_volume"
    if name == "register" and path is not None and "rounds" in read_yaml(path):
        name = "register_rounds"
    kind = _job_kind(name)
    if path is None:
        given.setdefault(kind.model.source_field, source)
    if output is not None:
        given.setdefault("output", output)
    if moving is not None:
        given.setdefault("moving", moving)
    return kind(load(kind.model, path, given))


def _asks_for_a_volume(source: str, path: str | None) -> bool:
    """Whether `segment` works on a volume: a job file names an `image`, a quick form is one."""
    if path is not None:
        return "image" in read_yaml(path)
    from warpbeam.transforms.storage.tiles.volumes import is_volume

    return is_volume(source)


def _job_kind(name: str) -> type[Command[Any]]:
    module, kind = _KINDS[name]
    found: type[Command[Any]] = getattr(import_module(f"warpbeam.pipelines.{module}"), kind)
    return found


def move_points(
    job: str,
    run: str,
    source: str,
    target: str | None,
    settings: Sequence[str],
    *,
    overwrite: bool,
) -> int:
    """Moves the points of a CSV file by a run of `align` or `register`; exit status 1 where some
    have no place. The one setting is the `scale` of `align`."""
    from warpbeam.pipelines import align_apply, apply

    if target is None:
        raise InputError(
            "there is no place for the moved points",
            where="the command line",
            expected=f"warpbeam {job} POINTS.csv MOVED.csv --apply RUN",
            got="one file",
            fix="name the file to be written",
        )
    given = parse_settings(settings)
    scale = given.pop("scale", 1) if job == "align" else 1
    if given or not isinstance(scale, int | float) or scale <= 0:
        raise InputError(
            "a setting is not for points",
            where="--set",
            expected="scale=4, pixels of the points along one that was aligned; of `align` alone",
            got=", ".join(settings),
            fix="leave it out",
        )
    if job == "align":
        lost = align_apply.move_points(run, source, target, scale, overwrite=overwrite)
    else:
        lost = apply.move_points(run, source, target, overwrite=overwrite)
    sys.stdout.write(f"{target}: {lost} points have no place in the volume of {run}\n")
    return 1 if lost else 0


def show_plan(job: Command[Any]) -> int:
    """Prints the plan; exit status 2 by InputError if a worker would need too much memory."""
    import os

    settings = job.config.run
    plan = job.plan()
    workers = settings.workers or os.cpu_count() or 1
    sys.stdout.write(plan.text(workers, settings.price_per_core_hour) + "\n")
    plan.refuse_if_too_large(settings.worker_memory_gb)
    return 0


def run_job(
    job: Command[Any],
    flags: Sequence[str],
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Runs a job with progress and prints its summary; returns the exit status."""
    watch = None if quiet else show_progress
    outcome = job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
    sys.stdout.write(summary(outcome))
    return outcome.exit_code


def summary(outcome: Outcome) -> str:
    """What was measured and what failed, as text."""
    told = {**outcome.numbers, "seconds": round(outcome.seconds, 1)}
    if outcome.report is not None:
        told["report"] = outcome.report
    lines = [table(told).rstrip("\n")]
    if outcome.failures:
        rest = "the job stopped there" if outcome.stopped else "everything else is done"
        failed = len(outcome.failures)
        lines.append(f"\n{failed} key{'' if failed == 1 else 's'} failed; {rest}:")
        for failure in outcome.failures[:_MOST_FAILURES_SHOWN]:
            lines.append(f"  {failure.stage} {failure.key}: {_cause(failure, outcome.stopped)}")
        hidden = len(outcome.failures) - _MOST_FAILURES_SHOWN
        if hidden > 0:
            lines.append(f"  … and {hidden} more in run.json")
    return "\n".join(lines) + "\n"


def _cause(failure: Failure, whole: bool) -> str:
    """Why a unit failed, and where: in a line, or all that is known of it."""
    first, *rest = failure.cause.splitlines() or [failure.error]
    if whole:
        return "\n  ".join([first, *rest])
    return ", ".join([first, *(ln.split("where:")[1].strip() for ln in rest if "where:" in ln)])


def table(told: dict[str, Any]) -> str:
    """Names and values below one another, each line with its end."""
    width = max(map(len, told), default=0)
    return "".join(f"{name.ljust(width)}  {_number(v)}\n" for name, v in told.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)):
        return " x ".join(map(str, value))
    return str(value)


@contextlib.contextmanager
def show_progress() -> Iterator[None]:
    """A line per stage: a moving bar where a person watches, a log line now and then elsewhere."""
    progress.reset()
    ended = threading.Event()
    draw = _draw_bars if sys.stderr.isatty() else _log_lines
    thread = threading.Thread(target=draw, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _draw_bars(ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}
        while True:
            last = ended.wait(0.25)
            for name, stage in progress.snapshot().items():
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=None, note="")
                bars.update(
                    tasks[name], total=stage.expected, completed=stage.finished, note=_note(stage)
                )
            if last:
                return


def _log_lines(ended: threading.Event) -> None:
    began, said = time.time(), ""
    while True:
        last = ended.wait(_LOG_EVERY_S)
        parts = [
            f"{name} {stage.finished}/{stage.expected}{_note(stage)}"
            for name, stage in progress.snapshot().items()
        ]
        line = ", ".join(parts)
        if line != said:
            sys.stderr.write(f"{time.time() - began:7.1f} s  {line}\n")
            said = line
        if last:
            return


def _note(stage: progress.StageProgress) -> str:
    notes = [
        f"{stage.outcomes[kind]} {kind}" for kind in ("skipped", "failed") if stage.outcomes[kind]
    ]
    return f" ({', '.join(notes)})" if notes else ""
