"""The command line: `warpbeam JOB …`. Imports of the jobs wait until one is chosen."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

_REFUSED = 2  # exit status where what was given is wrong
_EPILOG = """\
A job takes its settings from a YAML file, or from tiles and output given directly:

  warpbeam stitch tiles.csv stitched/
  warpbeam stitch job.yaml --set blend.mode=cosine -- --runner=FlinkRunner --parallelism=64

What follows -- goes to Apache Beam. Exit status: 0 done, 1 some keys failed (listed),
2 bad usage or configuration. A run that was stopped continues when it is started again.
"""

_JOBS = {
    "stitch": "place overlapping tiles and fuse them into one volume",
    "align": "align a stack of serial sections into one volume",
    "fuse": "fuse tiles whose matrices are known",
    "register": "register a moving volume onto a fixed one",
    "segment": "segment a plate of images or a volume into labels and tables of objects",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest command or option named in the error."""

    def error(self, message: str) -> None:  # type: ignore[override]
        import difflib

        words = message.replace("'", " ").replace("(", " ").split()
        known = [*self._options(), *_JOBS, *_TOOLS]
        near = [n for w in words for n in difflib.get_close_matches(w, known, 1, 0.7) if n != w]
        hint = f"{near[0]}?" if near else "see --help"
        sys.stderr.write(
            f"the command line is wrong\n  where:    {self.prog}\n  expected: {hint}\n"
            f"  got:      {message}\n  to do:    run `{self.prog} --help`\n"
        )
        raise SystemExit(2)

    def _options(self) -> set[str]:
        """The options of this parser and of its commands."""
        found = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    found |= set(command._option_string_actions)
        return found


def _add_jobs(commands: argparse._SubParsersAction[_Parser]) -> None:
    for name, what in _JOBS.items():
        job = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        if name == "register":
            job.add_argument("source", help="job file (.yaml), or fixed volume")
            job.add_argument("moving", nargs="?", help="moving volume")
            job.add_argument(
                "--apply",
                metavar="RUN",
                help="draw another volume, or move the points of a CSV, by the map of this run: "
                "warpbeam register OTHER OUT --apply RUN",
            )
        else:
            job.add_argument(
                "source", help="job file (.yaml), tile list, folder of images, or volume"
            )
        job.add_argument("output", nargs="?", help="folder or bucket prefix of the run")
        if name == "align":
            job.add_argument(
                "--apply", metavar="RUN",
                help="draw other images of the same sections, such as labels, or move the points "
                "of a CSV, by the maps of this run: warpbeam align LABELS OUT --apply RUN",
            )  # fmt: skip
        _add_settings(job)
        if name == "segment":
            _add_selection(job)
        job.add_argument("--stages", help="run these stages alone, comma-separated")
        job.add_argument("--overwrite", action="store_true", help="replace another run's output")
        job.add_argument("--quiet", action="store_true", help="no progress")
        job.set_defaults(call=_run_job, job=name)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE",
        help="change a setting; may be repeated",
    )  # fmt: skip


# What of a plate is chosen, as options of their own: name and meaning.
_SELECTION = {
    "experiment": "the one experiment",
    "chosen-wells": "all, or such as A1,B2-D4",
    "chosen-timepoints": "all, or such as T0-T7",
    "chosen-channels": "all, or names with commas between",
    "tile": "the one tile",
}


def _add_selection(job: argparse.ArgumentParser) -> None:
    for name, what in _SELECTION.items():
        job.add_argument(f"--{name}", help=what)
        if name.startswith("chosen-"):
            job.add_argument(f"--{name}-toggle", choices=["include", "exclude"],
                             help="whether those are in or out")  # fmt: skip


def _selected(options: argparse.Namespace) -> list[str]:
    """The options of `_add_selection` as settings."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    names = [n.replace("-", "_") for n in _SELECTION]
    toggles = [f"{n}_toggle" for n in names if n.startswith("chosen_")]
    return [f"select.{n.removeprefix('chosen_')}={given[n]}" for n in names + toggles if n in given]


def _plan(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "what a job will do, need and cost; nothing is written"
    plan = commands.add_parser("plan", help=what, description=what, allow_abbrev=False)
    plan.add_argument("job", choices=_JOBS)
    plan.add_argument("source", help="job file (.yaml), tile list, folder, or fixed volume")
    plan.add_argument("moving", nargs="?", help="moving volume of `register`")
    plan.add_argument("output", nargs="?", help="folder or bucket prefix of the run")
    _add_settings(plan)
    plan.set_defaults(call=_run_plan)


def _explain(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "every setting of a job: meaning, range, default"
    explain = commands.add_parser("explain", help=what, description=what, allow_abbrev=False)
    explain.add_argument("job", choices=_JOBS)
    explain.add_argument("--schema", action="store_true", help="as JSON Schema, for editors")
    explain.set_defaults(call=_run_explain)


def _demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "stitch real tiles that come with warpbeam"
    demo = commands.add_parser("demo", help=what, description=what, allow_abbrev=False)
    demo.add_argument("output", nargs="?", default="demo-output")
    demo.set_defaults(call=_run_demo)


def _inspect(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "what a volume is, and whether it is valid"
    inspect = commands.add_parser("inspect", help=what, description=what, allow_abbrev=False)
    inspect.add_argument("volume", help="a volume, or a run's folder")
    inspect.set_defaults(call=_run_inspect)


def _report(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "write report.html of a run again"
    report = commands.add_parser("report", help=what, description=what, allow_abbrev=False)
    report.add_argument("run", help="a run's folder")
    report.set_defaults(call=_run_report)


def _view(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "serve a volume to Neuroglancer and to a local page"
    view = commands.add_parser("view", help=what, description=what, allow_abbrev=False)
    view.add_argument("volume", help="a volume, or a run's folder")
    view.add_argument("--port", type=int, default=0, help="0: any free port")
    view.add_argument("--open", action="store_true", help="open the page in a browser")
    view.set_defaults(call=_run_view)


_TOOLS: dict[str, Callable[[argparse._SubParsersAction[_Parser]], None]] = {
    "plan": _plan,
    "explain": _explain,
    "demo": _demo,
    "inspect": _inspect,
    "report": _report,
    "view": _view,
}


def _parser() -> _Parser:
    parser = _Parser(
        prog="warpbeam",
        description="Stitch, align, fuse and segment microscopy images, on a laptop or a cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_jobs(commands)
    for add in _TOOLS.values():
        add(commands)
    return parser


def _version() -> str:
    import importlib.metadata

    try:
        return f"warpbeam {importlib.metadata.version('warpbeam')}"
    except importlib.metadata.PackageNotFoundError:
        return "warpbeam (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    ours, beams = given, []
    if "--" in given:
        split = given.index("--")
        ours, beams = given[:split], given[split + 1 :]
    options = _parser().parse_args(ours)
    options.beam = beams
    from warpbeam.pipelines.terminal import quiet_libraries
    from warpbeam.transforms import heap

    heap.bound_heap()  # before anything large is imported
    quiet_libraries()
    from warpbeam.transforms.storage.errors import InputError

    try:
        status: int = options.call(options)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues where this one ended\n")
        return 130
    except Exception as error:
        sys.stderr.write(_unforeseen(error))
        return 1
    return status


def entry() -> None:
    """The command. After a refusal it ends at once: threads that TensorStore has only just started
    can abort a process that ends by itself (1 of 8 times, measured)."""
    status = main()
    if status == _REFUSED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _unforeseen(error: Exception) -> str:
    """What is said about an error that is nobody's input: its last line, and where it was."""
    import traceback

    # Beam hands on the error of a worker as the text of its traceback.
    lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"warpbeam stopped because of an error\n"
        f"  where:    {place.filename}, line {place.lineno}\n"
        f"  expected: that a command ends without one\n"
        f"  got:      {type(error).__name__}: {lines[-1].strip()}\n"
        f"  to do:    run the same command again, it continues; if it stops again, report it\n"
    )


def _one_thread_per_call() -> None:
    """Before NumPy is loaded: its matrix products would start threads that fight Beam's."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _run_job(options: argparse.Namespace) -> int:
    _one_thread_per_call()
    from warpbeam.pipelines import console

    moving, output = _places(options)
    settings = [*_selected(options), *options.set]
    applied = getattr(options, "apply", None)
    target = moving if options.job == "register" else output
    if applied is not None and _are_points(options, target):
        return console.move_points(
            options.job, applied, options.source, target, settings, overwrite=options.overwrite
        )
    if applied is not None and options.job == "align":
        given = [*settings, f"alignment={applied}"]
        job = console.make_job("apply_stack", options.source, output, given)
    elif applied is not None:
        given = [*settings, f"registration={applied}"]
        job = console.make_job("apply", options.source, moving, given)
    else:
        job = console.make_job(options.job, options.source, output, settings, moving=moving)
    stages = options.stages.split(",") if options.stages else None
    return console.run_job(
        job, options.beam, stages=stages, overwrite=options.overwrite, quiet=options.quiet
    )


def _are_points(options: argparse.Namespace, target: str | None) -> bool:
    """Whether a table holds points to be moved: sections may be listed in one too, but then a
    folder is written."""
    if not options.source.endswith(".csv"):
        return False
    return options.job == "register" or target is None or target.endswith(".csv")


def _is_job_file(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def _places(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Moving volume and output: one place behind a source is the output, unless the source is a
    volume to be registered."""
    moving, output = getattr(options, "moving", None), options.output
    if options.job == "register" and not _is_job_file(options.source):
        return moving, output
    return None, output or moving


def _run_plan(options: argparse.Namespace) -> int:
    from warpbeam.pipelines import console

    moving, output = _places(options)
    output = output or (None if _is_job_file(options.source) else "OUTPUT")
    job = console.make_job(options.job, options.source, output, options.set, moving=moving)
    return console.show_plan(job)


def _run_explain(options: argparse.Namespace) -> int:
    from warpbeam.pipelines import explain

    sys.stdout.write(explain.text(options.job, schema=options.schema) + "\n")
    return 0


def _run_demo(options: argparse.Namespace) -> int:
    _one_thread_per_call()
    from warpbeam.pipelines import demo

    return demo.run(options.output)


def _run_inspect(options: argparse.Namespace) -> int:
    from warpbeam.pipelines import inspect

    return inspect.run(options.volume)


def _run_report(options: argparse.Namespace) -> int:
    from warpbeam.pipelines import report

    sys.stdout.write(report.write(options.run) + "\n")
    return 0


def _run_view(options: argparse.Namespace) -> int:
    from warpbeam.pipelines import view

    return view.run(options.volume, options.port, open_browser=options.open)


if __name__ == "__main__":
    entry()
