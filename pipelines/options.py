"""Beam's options, strictly: Beam itself drops a misspelt option with a mere log line."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from warpbeam.transforms.storage.errors import InputError

LOCAL_RUNNER = "FnApiRunner"

# Options that only the Java job server of Flink knows and that Python hands on.
_FLINK_OPTIONS = (
    "checkpointing_interval",
    "execution_mode_for_batch",
    "max_bundle_size",
    "max_bundle_time_mills",
    "max_parallelism",
    "number_of_execution_retries",
    "object_reuse",
    "parallelism",
    "state_backend",
    "state_backend_storage_path",
)


class _Options(PipelineOptions):
    """Options that keep their views.

    Beam asks for the same few views at every transform, and each time anew it sets up a
    parser for them: half of the time that it took to build a graph (measured). All views
    share the values, so a kept one is as good.
    """

    def view_as(self, cls: type[Any]) -> Any:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_views"}


def pipeline_options(flags: Sequence[str], workers: int) -> PipelineOptions:
    """Options from what followed `--` on the command line.

    Args:
        flags: such as `--runner=FlinkRunner`; without a runner the local one is named, so
            that the result does not depend on what else is installed or reachable.
        workers: local workers; 0 means one per core.

    Raises:
        InputError: an option that Beam does not know.
    """
    _refuse_unknown(flags)
    options = _Options(list(flags))
    if not any(f.split("=")[0] == "--runner" for f in flags):
        options.view_as(StandardOptions).runner = LOCAL_RUNNER
    if options.view_as(StandardOptions).runner == LOCAL_RUNNER:
        direct = options.view_as(DirectOptions)
        if not any(f.split("=")[0] == "--direct_num_workers" for f in flags):
            direct.direct_num_workers = workers or os.cpu_count() or 1
        if not any(f.split("=")[0] == "--direct_running_mode" for f in flags):
            direct.direct_running_mode = _running_mode(direct.direct_num_workers)
    return options


def _running_mode(workers: int) -> str:
    """Threads: pixels are handled by libraries that release the interpreter's lock, and a process
    costs about three seconds to start (measured). One worker needs no channel to itself, which
    is 20 MB."""
    return "in_memory" if workers == 1 else "multi_threading"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(
            "an option of the runner has a bad value",
            where="after --",
            expected="a value that Beam accepts",
            got=message,
            fix="see the documentation of the runner",
        )


def _refuse_unknown(flags: Sequence[str]) -> None:
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    for name in _FLINK_OPTIONS:
        parser.add_argument(f"--{name}")
    _, unknown = parser.parse_known_args(list(flags))
    if unknown:
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, list(parser._option_string_actions), 1, 0.4)
        raise InputError(
            "an option of the runner is not known",
            where="after --",
            expected=f"{near[0]}?" if near else "an option of Apache Beam or of its runner",
            got=unknown[0],
            fix="correct it; settings of the job itself go before -- as --set section.field=value",
        )
