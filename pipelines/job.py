"""What every job does around its graph: check, claim the output, run, count, report."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from warpbeam.pipelines.claim import claim
from warpbeam.pipelines.config import JobConfig
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.plan import Plan
from warpbeam.transforms.process import set_up_process
from warpbeam.transforms.stage import Stage
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger
from warpbeam.transforms.storage.run_folder import RunFolder

Config = TypeVar("Config", bound=JobConfig)

_log = logging.getLogger(__name__)

_VERSIONED = ("warpbeam", "antspyx", "apache-beam", "cellpose", "jax", "numpy",
              "opencv-contrib-python-headless", "picsl-greedy", "scikit-image", "scipy",
              "tensorstore", "tifffile")  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A unit that could not be done."""

    stage: str
    key: tuple[Any, ...]
    error: str
    cause: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        output: its folder.
        numbers: what was measured, in the order in which it is printed.
        failures: units that could not be done; the rest is complete, unless it was stopped.
        seconds: wall time.
        report: address of the report; None where it could not be written.
        stopped: a stage failed without which nothing after it makes sense.
        tolerated: no stage has more failures than `run.failed_share` allows.
    """

    output: str
    numbers: dict[str, Any]
    failures: tuple[Failure, ...]
    seconds: float
    report: str | None = None
    stopped: bool = False
    tolerated: bool = False

    @property
    def exit_code(self) -> int:
        return 1 if self.stopped or (self.failures and not self.tolerated) else 0


@dataclass
class Command(ABC, Generic[Config]):
    """What stands behind a command: it says what it will do, and does it.

    `name` is that of the job in its run's files, `model` what its settings are.
    """

    config: Config
    name: ClassVar[str]
    model: ClassVar[type[JobConfig]]

    def __post_init__(self) -> None:
        self.run_folder = RunFolder(self.config.output, self.config.volume.format)

    @abstractmethod
    def plan(self) -> Plan:
        """What will be done, before anything is done."""

    @abstractmethod
    def execute(
        self,
        flags: Sequence[str] = (),
        *,
        stages: Sequence[str] | None = None,
        overwrite: bool = False,
        watch: Callable[[], Any] | None = None,
    ) -> Outcome:
        """Runs it, or continues it.

        Args:
            flags: Beam options.
            stages: names of the stages to run; None means all.
            overwrite: replace the output of another run.
            watch: context manager that shows progress meanwhile.

        Raises:
            InputError: before any work, when something that the user gave is wrong.
        """

    def _sum_up(self, numbers: dict[str, Any], failures: Sequence[Failure], **facts: Any) -> None:
        """Stores `run.json`: the settings, what was measured, what failed, and `facts`."""
        store.write_json(
            self.run_folder.summary,
            {
                "job": self.name,
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
                "numbers": numbers,
                "failures": [dataclasses.asdict(f) for f in failures],
                **facts,
            },
        )

    def _report(self) -> str | None:
        """Writes the report; a run is not lost because a picture could not be drawn."""
        from warpbeam.pipelines import report

        try:
            return report.write(self.config.output)
        except Exception:
            _log.exception("the run is complete, but its report could not be written")
            return None


@dataclass
class Job(Command[Config]):
    """One job: a configuration, what it works on, its graph.

    Subclasses name the job, read its input, build the graph and sum up.
    """

    @abstractmethod
    def build(self, graph: JobGraph) -> None:
        """Adds the job's stages."""

    def check(self) -> None:
        """Raises InputError where the input and the settings do not go together."""

    @abstractmethod
    def fingerprint(self, *, with_versions: bool = True) -> str:
        """Of the input, with or without the versions of its files."""

    def shared_inputs(self) -> str:
        """Of the input, what the units of all stages depend on besides what they say themselves."""
        return self.fingerprint(with_versions=False)

    def continues(self, theirs: dict[str, Any]) -> bool:
        """Whether this job goes on with a run that worked on less than is there now; `theirs` says
        what it was."""
        return False

    @abstractmethod
    def save_inputs(self) -> None:
        """Stores for the workers what they work on."""

    def discard(self, theirs: dict[str, Any]) -> None:
        """Takes out of other places what a run that is overwritten stored there; `theirs` says
        what it was."""

    def prepare(self) -> None:
        """Writes what the first stage needs, besides the inputs."""

    @abstractmethod
    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        """What was measured, for the summary."""

    def graph(self, **given: Any) -> JobGraph:
        """The stages of this job."""
        graph = JobGraph(
            self.config.output, self.shared_inputs(), self.config.run.attempts, **given
        )
        self.build(graph)
        return graph

    def execute(
        self,
        flags: Sequence[str] = (),
        *,
        stages: Sequence[str] | None = None,
        overwrite: bool = False,
        watch: Callable[[], Any] | None = None,
    ) -> Outcome:
        import apache_beam as beam

        from warpbeam.pipelines.options import pipeline_options

        # Before Beam starts threads, which would take arenas of their own.
        set_up_process()
        started = time.time()
        options = pipeline_options(flags, self.config.run.workers)
        self.plan().refuse_if_too_large(self.config.run.worker_memory_gb)
        self.check()
        # Listing the stages reads what some of them are given: what is wrong with it is said
        # before the output is claimed.
        only = self._chosen(stages, self.graph().stages)
        self._claim(overwrite=overwrite)
        pipeline = beam.Pipeline(options=options)
        graph = self.graph(pipeline=pipeline, only=only)
        for stage in graph.stages:
            if only is None or stage.name in only:
                stage.ledger.clear_failures()
        try:
            with watch() if watch is not None else contextlib.nullcontext():
                pipeline.run().wait_until_finish()
        except Exception:
            if not any(s.critical and s.ledger.failures() for s in graph.stages):
                raise
            return self._outcome(graph, time.time() - started, stopped=True)
        return self._outcome(graph, time.time() - started)

    def _chosen(
        self, stages: Sequence[str] | None, every: Sequence[Stage]
    ) -> frozenset[str] | None:
        if stages is None:
            return None
        known = [stage.name for stage in every]
        for name in stages:
            if name not in known:
                raise InputError(
                    "a stage is not known",
                    where="--stages",
                    expected=", ".join(known),
                    got=name,
                    fix="choose among these",
                )
        for stage in every[: max(map(known.index, stages), default=0)]:
            if stage.critical and stage.name not in stages and not stage.ledger.done():
                raise InputError(
                    "a stage before the chosen ones was not run yet",
                    where="--stages",
                    expected=f"{stage.name} among them, or done in {self.config.output}",
                    got=",".join(stages),
                    fix=f"add {stage.name}, or leave --stages out",
                )
        return frozenset(stages)

    def _claim(self, *, overwrite: bool) -> None:
        """Makes the output folder this run's own, or finds that it is already.

        A tile whose file was written again since (repaired, say) belongs to the same run:
        the version of each tile is part of what its units are asked to do.
        """
        mine = {
            "job": self.name,
            "settings": self.config.result_settings(),
            "inputs": self.fingerprint(with_versions=False),
        }
        claim(self.run_folder, mine, self.continues, self.discard, overwrite=overwrite)
        self.save_inputs()
        self.prepare()

    def _outcome(self, graph: JobGraph, seconds: float, *, stopped: bool = False) -> Outcome:
        failures = tuple(
            Failure(stage.name, key, cause["error"], cause["cause"])
            for stage in graph.stages
            for key, cause in stage.ledger.failures()
        )
        numbers = {} if stopped else self.numbers(graph, seconds)
        self._sum_up(
            numbers, failures, inputs=self.fingerprint(), seconds=seconds,
            stages={stage.name: stage.ledger.config_hash for stage in graph.stages},
        )  # fmt: skip
        wanted = self.config.run.report and not stopped
        report = self._report() if wanted else None
        most = self.config.run.failed_share
        tolerated = all(_failed_share(stage.ledger) <= most for stage in graph.stages)
        return Outcome(self.config.output, numbers, failures, seconds, report, stopped, tolerated)


def _failed_share(ledger: Ledger) -> float:
    failed = len(ledger.failures())
    return failed / (failed + len(ledger.done())) if failed else 0.0


def versions() -> dict[str, str]:
    """What the result was made with."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
