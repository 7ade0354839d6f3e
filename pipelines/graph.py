"""A job as one Beam graph: stages in a row, a barrier between each two.

Every stage's ledger is named by a hash over its own settings and those of all stages
before it, so that changing a setting redoes what depends on it and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from warpbeam.transforms.stage import (
    After,
    Announced,
    Barrier,
    RunStage,
    Stage,
    Unit,
    Work,
    announced,
)
from warpbeam.transforms.storage.ledger import Ledger, chain, key_name


@dataclass
class JobGraph:
    """Builds the stages of one run.

    Attributes:
        run: URI of the run's folder.
        inputs: fingerprint of the tile list.
        attempts: tries of a unit.
        pipeline: where the stages go; None only lists them.
        only: names of the stages that shall run; None means all.
    """

    run: str
    inputs: str
    attempts: int = 4
    pipeline: beam.Pipeline | None = None
    only: frozenset[str] | None = None
    stages: list[Stage] = field(default_factory=list)
    _barrier: Barrier | None = None

    def ledger(self, name: str) -> Ledger:
        """The ledger of a stage that was added."""
        return next(stage.ledger for stage in self.stages if stage.name == name)

    def add(
        self,
        name: str,
        settings: Any,
        list_units: Callable[[], Iterable[Any]],
        work: Callable[[Stage], beam.PTransform],
        *,
        critical: bool = False,
        needed: bool = True,
    ) -> None:
        """A stage after all that were added before.

        Args:
            name: of the stage.
            settings: what decides its results besides its units and the earlier stages.
            list_units: what it works on; called in a worker when the earlier stages ended.
            work: the transform from those to a barrier.
            critical: whether a failure stops the job.
            needed: whether it may have units; without, it has a ledger but no place in the graph.
        """
        stage = Stage(self.following(name, settings), self.attempts, critical=critical)
        self.stages.append(stage)
        chosen = self.only is None or name in self.only
        if self.pipeline is not None and needed and chosen:
            units = self.pipeline | After(f"{name}: units", list_units, self._barrier)
            self._barrier = units | f"{name}: run" >> work(stage)

    def map(
        self,
        name: str,
        settings: Any,
        list_units: Callable[[], Iterable[Unit]],
        work: Work,
        *,
        critical: bool = False,
        needed: bool = True,
    ) -> None:
        """A stage that does one piece of work per unit."""
        listing = functools.partial(_announced, self.following(name, settings), list_units)
        self.add(
            name, settings, listing, lambda stage: RunStage(stage, work), critical=critical,
            needed=needed,
        )  # fmt: skip

    def following(self, name: str, settings: Any) -> Ledger:
        """The ledger of a stage that comes next."""
        before = self.stages[-1].ledger.config_hash if self.stages else self.inputs
        return Ledger(self.run, name, chain(before, name, settings))


def _announced(ledger: Ledger, list_units: Callable[[], Iterable[Unit]]) -> Iterator[Announced]:
    """What was done for units that are listed no more, as input changed, counts no longer."""
    names = set()
    for number, unit in announced(ledger.stage, list_units()):
        names.add(key_name(unit[0]))
        yield number, unit
    ledger.keep(names)
