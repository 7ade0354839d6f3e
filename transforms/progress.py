"""How far the stages of this process are; Beam's local runner shows nothing while it runs."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class StageProgress:
    """Counts of one stage."""

    expected: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        return sum(self.outcomes.values())


_lock = threading.Lock()
_stages: dict[str, StageProgress] = {}


def expect(stage: str, units: int = 1) -> None:
    """Units of work became known."""
    with _lock:
        _stages.setdefault(stage, StageProgress()).expected += units


def finish(stage: str, outcome: str) -> None:
    """A unit ended as `done`, `skipped` or `failed`."""
    with _lock:
        _stages.setdefault(stage, StageProgress()).outcomes[outcome] += 1


def snapshot() -> dict[str, StageProgress]:
    """A copy of all counts, stages in the order in which they began."""
    with _lock:
        return {name: StageProgress(s.expected, Counter(s.outcomes)) for name, s in _stages.items()}


def reset() -> None:
    with _lock:
        _stages.clear()
