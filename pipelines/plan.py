"""What a job will do, cost and need, computed before anything is done."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.transforms.storage.errors import InputError


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: of the stage.
        units: how many keys it has.
        bytes_read: in all, uncompressed.
        bytes_written: in all, uncompressed.
        memory: bytes of one worker at its peak, above the interpreter and its libraries.
        core_seconds: estimated from rates measured on one core.
    """

    name: str
    units: int
    bytes_read: int
    bytes_written: int
    memory: int
    core_seconds: float


@dataclass(frozen=True)
class Plan:
    """All stages of a job.

    Attributes:
        stages: in order.
        base_memory: bytes of a worker before it works: interpreter and libraries.
        what: lines that describe input and output.
    """

    stages: tuple[StagePlan, ...]
    base_memory: int
    what: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Peak of a worker, bytes."""
        return self.base_memory + max((s.memory for s in self.stages), default=0)

    @property
    def core_hours(self) -> float:
        return sum(s.core_seconds for s in self.stages) / 3600

    def refuse_if_too_large(self, limit_gb: float) -> None:
        """Raises InputError when a worker would need more memory than it may have."""
        if self.memory <= limit_gb * 1e9:
            return
        worst = max(self.stages, key=lambda s: s.memory)
        raise InputError(
            "the plan needs more memory than a worker may have",
            where=f"stage {worst.name}",
            expected=f"at most {limit_gb:g} GB (run.worker_memory_gb)",
            got=f"{self.memory / 1e9:.2f} GB",
            fix="choose smaller shards (volume.shard_2d, volume.shard_3d), or allow more",
        )

    def text(self, workers: int, price: float) -> str:
        """The plan as a table."""
        rows = [("stage", "units", "read MB", "write MB", "memory MB", "core s")]
        rows += [
            (s.name, f"{s.units}", f"{s.bytes_read / 1e6:.1f}", f"{s.bytes_written / 1e6:.1f}",
             f"{(self.base_memory + s.memory) / 1e6:.0f}", f"{s.core_seconds:.1f}")
            for s in self.stages
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        seconds = self.core_hours * 3600 / max(workers, 1)
        total = (
            f"about {seconds:.0f} s on {workers} workers, {self.core_hours:.3g} core hours, "
            f"${self.core_hours * price:.2g}; peak memory of a worker {self.memory / 1e6:.0f} MB"
        )
        return "\n".join([*self.what, "", *lines, "", total])
