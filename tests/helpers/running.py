"""Runs jobs from tests: in this process through the explicit local runner, or as a command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from warpbeam.pipelines.config import FuseConfig, StitchConfig
from warpbeam.pipelines.job import Job, Outcome
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.store import LOCK_SUFFIX

ROOT = Path(__file__).resolve().parents[2]
# Small chunks and shards, so that a small mosaic has many shards, and several levels.
SMALL = {
    "chunk_2d": (32, 32),
    "shard_2d": (64, 64),
    "chunk_3d": (8, 32, 32),
    "shard_3d": (16, 64, 64),
}


def fuse(tiles: Path, output: Path, flags: Sequence[str] = (), **settings: Any) -> Outcome:
    """`fuse` with small shards and two workers, unless `settings` say otherwise.

    The exit status must be `expect`, 0 by default, so that no test compares two failures.
    """
    from warpbeam.pipelines import fuse

    return _run(fuse.run, FuseConfig, tiles, output, flags, settings)


def stitch(tiles: Path, output: Path, flags: Sequence[str] = (), **settings: Any) -> Outcome:
    """The same for `stitch`."""
    from warpbeam.pipelines import stitch

    return _run(stitch.run, StitchConfig, tiles, output, flags, settings)


ALIGNED = {
    "flow": {"patch_px": 48, "stride_px": 16, "search_px": 16, "scales": (1,), "bridges": (3,)},
    "mesh": {"bending_px": 60.0, "block_sections": 50, "steady_drift": False, "drift_sections": 0},
    "rough": {"model": "translation"},
}


def align(sections: Path, output: Path, flags: Sequence[str] = (), **settings: Any) -> Outcome:
    """`align` with patches and shards for sections of some hundred pixels."""
    from warpbeam.pipelines import align
    from warpbeam.pipelines.align_config import AlignConfig

    for name, values in ALIGNED.items():
        settings[name] = values | settings.get(name, {})
    return _run(align.run, AlignConfig, sections, output, flags, settings)


def _run(
    run: Any, model: Any, tiles: Path, output: Path, flags: Sequence[str], settings: dict[str, Any]
) -> Outcome:
    execution = {k: settings.pop(k) for k in ("stages", "step", "overwrite") if k in settings}
    expect = settings.pop("expect", 0)
    with mock.patch.object(Job, "_report", return_value=None):  # drawn in tests of its own
        values = _values(model.source_field, tiles, output, settings)
        outcome: Outcome = run(model(**values), flags, **execution)
    assert outcome.exit_code == expect, outcome.failures
    return outcome


def _values(field: str, tiles: Path, output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    sizes = SMALL | settings.pop("volume", {})
    return {
        field: str(tiles),
        "output": str(output),
        "volume": sizes,
        "run": {"workers": 2} | settings.pop("run", {}),
        **settings,
    }


def pixels(run: Path, level: int = 0, format: str = "zarr3") -> np.ndarray:
    """A level of a run's volume, tczyx."""
    from warpbeam.kernels.geometry.box import Box
    from warpbeam.transforms.storage.run_folder import RunFolder

    opened = volume.open_volume(RunFolder(str(run), format).volume).level(level)
    return opened.read(Box.of_shape(opened.shape))


def markers(run: Path, stage: str = "") -> dict[str, int]:
    """Every done marker of a run (of one stage) and when it was written, ns.

    What a killed writer had begun is no marker, here as in the ledger.
    """
    folder = run / ".ledger" / "done" / stage
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and not p.name.endswith(LOCK_SUFFIX)
    }


def object_hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder by its content; locks of a killed writer are left out."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(LOCK_SUFFIX)
    }


def environment() -> Mapping[str, str]:
    """Lets a fresh interpreter import `warpbeam` from this checkout, installed or not."""
    folder = Path(tempfile.gettempdir()) / f"warpbeam-path-{os.getuid()}-{abs(hash(ROOT)) % 10**8}"
    folder.mkdir(exist_ok=True)
    link = folder / "warpbeam"
    if not link.is_symlink():
        link.symlink_to(ROOT)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`warpbeam ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "warpbeam.pipelines.cli", *map(str, arguments)],
        env=environment(), capture_output=True, text=True, check=False, timeout=120, **options,
    )  # fmt: skip


REGISTERED = {"chunks": {"size_px": 40}, "lattice": {"search_px": 12.0}}


def register(
    pair: Sequence[Path], output: Path, flags: Sequence[str] = (), **settings: Any
) -> Outcome:
    """`register` of a fixed and a moving volume with small chunks and shards."""
    from warpbeam.pipelines import register
    from warpbeam.pipelines.register_config import RegisterConfig

    for name, values in REGISTERED.items():
        settings[name] = values | settings.get(name, {})
    settings["moving"] = str(pair[1])
    return _run(register.run, RegisterConfig, pair[0], output, flags, settings)
