"""The one way in which work is done: each unit once, retried, counted, never lost.

    units: (key, payload) -> RunStage(stage, work) -> barrier: empty, and there when all is done

A unit that the ledger says is done is skipped. Another is handed to `work`; when its
record comes back the ledger is marked. What fails for a passing reason (a store that is
busy) is tried again with growing pauses, inside the DoFn because the local runner retries
nothing; what fails for good becomes a dead letter in the ledger, and the rest goes on.

The record is all that later stages see of a unit: they read it from the ledger, so a
unit that was skipped and one that was just done look the same to them.
"""

from __future__ import annotations

import logging
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import apache_beam as beam

from warpbeam.transforms import progress
from warpbeam.transforms.heap import give_back_memory
from warpbeam.transforms.process import set_up_process
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest, key_name

Unit = tuple[Key, Any]
Work = Callable[[Any, Any], Record]

_log = logging.getLogger(__name__)

# Words by which TensorStore and the bucket clients report a reason that can pass.
_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL")
_PERMANENT_OS_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class Stage:
    """A named step of a job.

    Attributes:
        ledger: where its units are marked.
        attempts: how often a unit is tried in all.
        first_pause_s: pause after the first failed try; it doubles after each further one.
        critical: a failed unit stops the job, because nothing after it makes sense.
        hints: Beam resource hints, such as `min_ram` or `accelerator`.
    """

    ledger: Ledger
    attempts: int = 4
    first_pause_s: float = 0.5
    critical: bool = False
    hints: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.ledger.stage


# A unit under its number, see `announced`.
Announced = tuple[int, Unit]
# What a finished stage leaves in the graph, for the next one to wait for.
Barrier: TypeAlias = "beam.PCollection[None]"


class RunStage(beam.PTransform):
    """Does every unit of a stage once; gives a barrier, which later stages wait for.

    Applied to what `announced` yields.
    """

    def __init__(self, stage: Stage, work: Work) -> None:
        super().__init__(stage.name)
        self._stage = stage
        self._work = work

    def expand(self, units: beam.PCollection[Announced]) -> Barrier:
        # A grouping by key is what `Reshuffle` comes down to. Beam takes ten milliseconds for
        # every transform that is built, and that one is half a dozen.
        run = beam.ParDo(_WorkFn(self._stage, self._work)).with_output_types(type(None))
        return (
            units
            | "spread" >> beam.GroupByKey()
            | "work" >> run.with_resource_hints(**self._stage.hints)
        )


class After(beam.PTransform):
    """What a stage works on, listed in a worker once the stages before it are finished.

    `listing` is called with no arguments; it may read what the finished stages stored.
    Applied to the pipeline.
    """

    def __init__(
        self,
        label: str,
        listing: Callable[[], Iterable[Any]],
        barrier: Barrier | None,
    ) -> None:
        super().__init__(label)
        self._listing = listing
        self._barrier = barrier

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Any]:
        waits = [] if self._barrier is None else [beam.pvalue.AsIter(self._barrier)]
        return (
            pipeline
            | "start" >> beam.Impulse()  # `Create` would bring a shuffle of its own
            | "list" >> beam.ParDo(_ListFn(self._listing), *waits)
        )


class StatelessFn(beam.DoFn):
    """A DoFn without state or timers.

    Beam asks eight times for each DoFn whether it has any, and each time looks at the signatures
    of all that `dir` names: a quarter of what a job costs that has nothing to do (measured).
    """

    def __dir__(self) -> list[str]:
        return ["process"]


class _ListFn(StatelessFn):
    def __init__(self, listing: Callable[[], Iterable[Any]]) -> None:
        self._listing = listing

    def process(self, _: bytes, _wait: Iterable[None] = ()) -> Iterable[Any]:
        return self._listing()


def announced(stage: str, units: Iterable[Unit]) -> Iterator[Announced]:
    """The units of a stage, each counted and under a number that spreads them over the workers."""
    for unit in units:
        progress.expect(stage)
        yield zlib.crc32(key_name(unit[0]).encode()), unit


def is_passing(error: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    if isinstance(error, (InputError, *_PERMANENT_OS_ERRORS)):
        return False
    if isinstance(error, OSError):
        return True
    return any(word in str(error) for word in _PASSING)


class _WorkFn(StatelessFn):
    def __init__(self, stage: Stage, work: Work) -> None:
        self._stage = stage
        self._work = work
        self._done: dict[str, str] | None = None

    def setup(self) -> None:
        set_up_process()
        if hasattr(self._work, "setup"):
            self._work.setup()

    def start_bundle(self) -> None:
        # Listed once a worker, not once a bundle; but only when the stage really starts.
        if self._done is None:
            self._done = self._stage.ledger.done()

    def process(self, group: tuple[int, Iterable[Unit]]) -> None:
        for key, payload in group[1]:
            self._once(key, payload)

    def _once(self, key: Key, payload: Any) -> None:
        wanted = digest(payload)
        if (self._done or {}).get(key_name(key)) == wanted:
            outcome = "skipped"
        else:
            outcome = self._do(key, payload, wanted)
            give_back_memory()
        progress.finish(self._stage.name, outcome)
        self._count(outcome, 1)

    def _do(self, key: Key, payload: Any, wanted: str) -> str:
        ledger = self._stage.ledger
        started = time.perf_counter()
        try:
            if key_name(key) in (self._done or {}):
                ledger.invalidate(key)
            record = self._persist(key, payload)
            ledger.commit(key, wanted, record)
        except Exception as error:
            _log.warning("%s %s failed: %s", self._stage.name, key, error)
            ledger.fail(key, {"error": type(error).__name__, "cause": str(error),
                              "trace": traceback.format_exc(limit=-8)})  # fmt: skip
            if self._stage.critical:
                raise
            self._count(f"failed_{type(error).__name__}", 1)
            return "failed"
        self._count("msec", round(1000 * (time.perf_counter() - started)))
        for name in ("bytes_read", "bytes_written"):
            self._count(name, int(record.get(name, 0)))
        return "done"

    def _persist(self, key: Key, payload: Any) -> Record:
        """Calls the work until it succeeds, fails for good, or was tried often enough."""
        for attempt in range(1, self._stage.attempts + 1):
            try:
                return self._work(key, payload)
            except Exception as error:
                if attempt == self._stage.attempts or not is_passing(error):
                    raise
                self._count("retries", 1)
                time.sleep(self._stage.first_pause_s * 2 ** (attempt - 1))
        raise ValueError(f"a stage needs at least one attempt, got {self._stage.attempts}")

    def _count(self, name: str, by: int) -> None:
        beam.metrics.Metrics.counter(f"warpbeam.{self._stage.name}", name).inc(by)
