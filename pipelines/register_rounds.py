"""`register` with many rounds: moving volumes -> the frame of one fixed volume, one by one.

warpbeam register rounds.yaml                         # fixed, output, and rounds: {name: volume}
warpbeam register rounds.yaml --set chosen=[round_2]  # that one again

from warpbeam.pipelines import register_rounds
from warpbeam.pipelines.register_config import RoundsConfig
register_rounds.run(RoundsConfig(fixed="a.tif", rounds={"b": "b.tif"}, output="registered"))
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.pipelines.job import Command, Failure, Outcome
from warpbeam.pipelines.plan import Plan
from warpbeam.pipelines.register import RegisterJob
from warpbeam.pipelines.register_config import RoundsConfig

# What is said of each round.
_TOLD = ("ncc_before", "ncc", "left_median_px", "poor_chunks")


class RoundsJob(Command[RoundsConfig]):
    """All rounds of a configuration, or those that are chosen."""

    name = "register_rounds"
    model = RoundsConfig

    @functools.cached_property
    def rounds(self) -> dict[str, RegisterJob]:
        """The jobs; each has looked at its volumes."""
        names = self.config.chosen or list(self.config.rounds)
        return {name: RegisterJob(self.config.round(name)) for name in names}

    def plan(self) -> Plan:
        plans = {name: job.plan() for name, job in self.rounds.items()}
        stages = [
            dataclasses.replace(stage, name=f"{name}: {stage.name}")
            for name, plan in plans.items()
            for stage in plan.stages
        ]
        memory = max(plan.base_memory for plan in plans.values())
        what = [line for plan in plans.values() for line in plan.what]
        return Plan(tuple(stages), memory, tuple(what))

    def execute(
        self,
        flags: Sequence[str] = (),
        *,
        stages: Sequence[str] | None = None,
        overwrite: bool = False,
        watch: Callable[[], Any] | None = None,
    ) -> Outcome:
        started = time.time()
        for job in self.rounds.values():
            job.plan().refuse_if_too_large(job.config.run.worker_memory_gb)
            job.check()
        ended = {
            name: job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
            for name, job in self.rounds.items()
        }
        return self._outcome(ended, time.time() - started)

    def _outcome(self, ended: dict[str, Outcome], seconds: float) -> Outcome:
        numbers: dict[str, Any] = {"rounds": len(ended)}
        for name, outcome in ended.items():
            found = outcome.numbers
            numbers |= {f"{name}.{what}": found[what] for what in _TOLD if what in found}
        failures = tuple(
            Failure(f"{name}: {f.stage}", f.key, f.error, f.cause)
            for name, outcome in ended.items()
            for f in outcome.failures
        )
        inputs = {name: job.fingerprint() for name, job in self.rounds.items()}
        self._sum_up(numbers, failures, inputs=inputs, seconds=seconds)
        return Outcome(
            self.config.output, numbers, failures, seconds,
            report=self._report() if self.config.run.report else None,
            stopped=any(outcome.stopped for outcome in ended.values()),
            tolerated=all(not o.failures or o.tolerated for o in ended.values()),
        )  # fmt: skip


def run(config: RoundsConfig, flags: Sequence[str] = (), **options: Any) -> Outcome:
    """Runs or continues all rounds; options as of `RoundsJob.execute`."""
    return RoundsJob(config).execute(flags, **options)
