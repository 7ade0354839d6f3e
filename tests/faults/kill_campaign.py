"""Kills a running job with SIGKILL at random instants, and looks at what a restart makes of it.

    python tests/faults/kill_campaign.py --kills 20 --seed 0 --job fuse

Each trial runs the job in a process group of its own, kills it after a random part of the time
that an undisturbed run works, and starts it again until it ends by itself. Then

* the result must have the same bytes as that of the undisturbed run, and a database the same
  rows: none is missing, none is there twice,
* no unit that was marked as done may be marked anew: what is computed twice was in flight.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from operator import eq
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "helpers")]

import conftest  # noqa: E402, F401  (makes `warpbeam` importable from the checkout)
from phantoms import write_mosaic  # noqa: E402
from plates import rows_of, write_plate  # noqa: E402
from running import ALIGNED, environment, markers, object_hashes  # noqa: E402
from solids import grey_of, threads, write_image  # noqa: E402
from stacks import make_stack, write_stack  # noqa: E402
from volumes import make_pair, write_pair  # noqa: E402

WORKERS = 2
RESULTS = (
    "volume.ome.zarr", "masks", "tracked", "crops", "plates", "maps", "transforms.json",
    "objects.parquet", "cells.parquet", "puncta.parquet",
)  # fmt: skip
# Several blocks of sections, so that every stage of `align` has units to lose.
MESH = ALIGNED["mesh"] | {"block_sections": 4}
# What makes the units of each job small and many, and lets every stage have some.
SETTINGS: dict[str, dict[str, Any]] = {
    "fuse": {"volume.coverage": True},
    "stitch": {"volume.coverage": True},
    "align": {
        f"{section}.{key}": value
        for section, values in (ALIGNED | {"mesh": MESH}).items()
        for key, value in values.items()
    },
    "register": {"chunks.size_px": 32},
    "segment": {"labels.fan_out": 2},
    "pieces": {"labels.fan_out": 2, "pieces.enabled": True},
    "plate": {
        "threshold.channel": "nuclei", "background.correct": "subtract", "masks.crops_px": 16,
        "puncta.channels": ["actin"], "track.masks": True,
    },
}  # fmt: skip
# A plate that goes on to be recorded while it is segmented.
SETTINGS["growing"] = SETTINGS["plate"]
JOBS = tuple(SETTINGS)
SOLID = ("align", "register", "segment", "pieces")


@dataclass(frozen=True)
class Trial:
    """What became of one run that was killed.

    Attributes:
        kills: how often it was killed before it could end.
        marked: units that were done when it was killed last.
        remarked: of those, the ones that a restart marked again; must be 0.
        same: whether the result has the bytes of the undisturbed run.
        status: exit status of the run that ended by itself.
    """

    kills: int
    marked: int
    remarked: int
    same: bool
    status: int

    @property
    def good(self) -> bool:
        return self.same and self.remarked == 0 and self.status == 0


def command_line(job: str, source: Path, output: Path) -> list[str]:
    """A job with many small units; without a report, which is drawn after everything is done."""
    sizes = "3d" if job in SOLID else "2d"
    sources = [source / f"{n}.tif" for n in ("fixed", "moving")] if job == "register" else [source]
    small = [8, 32, 32][-int(sizes[0]) :]
    settings = {
        "run.workers": WORKERS, "run.report": False,
        f"volume.shard_{sizes}": small, f"volume.chunk_{sizes}": small,
        **SETTINGS[job],
    }  # fmt: skip
    command = "segment" if job in ("plate", "growing", "pieces") else job
    given = [
        part
        for name, value in settings.items()
        for part in ("--set", f"{name}={json.dumps(value)}")
    ]
    return [sys.executable, "-m", "warpbeam.pipelines.cli", command, *map(str, sources),
            str(output), *given, "--quiet"]  # fmt: skip


def make_source(job: str, folder: Path, grid: tuple[int, int]) -> Path:
    """What the job works on: a grid of tiles, for `align` as many sections, for `segment` and
    `pieces` a volume of as many blocks, for `plate` and `growing` wells of so many tiles at two
    times, for `register` two volumes."""
    if job == "register":
        return write_pair(folder / "volumes", make_pair())[0].parent
    if job in ("segment", "pieces"):
        shape = (8, 32 * grid[0], 32 * grid[1])
        return write_image(folder / "image.ome.zarr", grey_of(threads(shape=shape)))
    if job in ("plate", "growing"):
        wells = [f"A{k}" for k in range(1, grid[0] + 1)]
        return write_plate(folder / "images", wells=wells, times=2, tiles=grid[1])
    if job == "align":
        return write_stack(folder / "sections", make_stack(grid[0] * grid[1]))
    return write_mosaic(folder / "tiles", rows=grid[0], columns=grid[1], tile=128, step=100)


def result_of(run: Path) -> dict[str, str]:
    """The bytes that a user sees, as hashes, and the rows of each table of a database."""
    found = {}
    for path in filter(Path.exists, (run / name for name in RESULTS)):
        files = object_hashes(path) if path.is_dir() else {"": path.read_bytes().hex()}
        found.update({f"{path.name}/{key}": value for key, value in files.items()})
    if (run / "plate.sqlite").exists():
        found.update({f"plate.sqlite/{name}": repr(rows) for name, rows in rows_of(run).items()})
    return found


def _started(run: Path) -> int:
    """When the job last began to work, ns: it writes the list of what it works on first."""
    notes = [run / ".ledger" / name for name in ("tiles.json", "sites.json")]
    return max((note.stat().st_mtime_ns for note in notes if note.exists()), default=0)


def run_killed(arguments: list[str], run: Path, after_s: float) -> bool:
    """Starts a process and kills its group some time after it began to work; whether it ran."""
    before = _started(run)
    process = subprocess.Popen(
        arguments, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while _started(run) == before and process.poll() is None:
        time.sleep(0.002)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def run_whole(arguments: list[str]) -> int:
    """The exit status of an undisturbed run."""
    return subprocess.run(arguments, env=environment(), capture_output=True, check=False).returncode


def trial(arguments: list[str], run: Path, expected: dict[str, str], delays: list[float]) -> Trial:
    """Kills a run once per delay, lets it end, and compares."""
    kills, remarked = 0, 0
    before: dict[str, int] = {}
    for delay in delays:
        kills += run_killed(arguments, run, delay)
        remarked += _rewritten(before, run)
        before = markers(run)
    status = run_whole(arguments)
    remarked += _rewritten(before, run)
    return Trial(kills, len(before), remarked, result_of(run) == expected, status)


def _rewritten(before: dict[str, int], run: Path) -> int:
    now = markers(run)
    # What a plate that grew asks anew has other names.
    return sum(now.get(name, time) != time for name, time in before.items())


def begin_growing(plate: Path, run: Path) -> None:
    """A run over what was recorded of a plate before its last well, tile and time were."""
    whole = plate.read_text()
    head, *rows = whole.splitlines()
    keys = [row.split(",")[:3] for row in rows]
    last = [max(column) for column in zip(*keys, strict=True)]
    early = [row for row, own in zip(rows, keys, strict=True) if not any(map(eq, own, last))]
    plate.write_text("\n".join([head, *early]) + "\n")
    status = run_whole(command_line("growing", plate, run))
    plate.write_text(whole)
    if status:
        raise SystemExit(f"the run before the plate grew ended with status {status}")


def campaign(
    folder: Path, *, kills: int, seed: int, job: str, grid: tuple[int, int] = (3, 4)
) -> list[Trial]:
    """As many trials as it takes to kill that often; every third run is killed twice."""
    draw = random.Random(seed)
    source = make_source(job, folder, grid)
    for name in ("first", "plain"):  # the first may compile programs, and would take longer
        plain = folder / name
        status = run_whole(command_line(job, source, plain))
        if status:
            raise SystemExit(f"the undisturbed run ended with status {status}")
    working = (max(markers(plain).values()) - _started(plain)) / 1e9  # to the last unit's end
    expected, found, left = result_of(plain), [], kills
    while left > 0:
        count = min(left, 2 if len(found) % 3 == 2 else 1)
        delays = [draw.uniform(0, 0.95 * working) for _ in range(count)]
        run = folder / f"run{len(found)}"
        if job == "growing":
            begin_growing(source, run)
        found.append(trial(command_line(job, source, run), run, expected, delays))
        left -= count
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", choices=JOBS, default="fuse")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(Path(folder), kills=options.kills, seed=options.seed, job=options.job)
    if options.json:
        print(json.dumps([asdict(t) for t in found]))
    for number, each in enumerate(found):
        verdict = "good" if each.good else "BAD"
        if not options.json:
            print(f"run {number}: killed {each.kills} times, {each.marked} units done before, "
                  f"{each.remarked} of them redone, same bytes {each.same}: {verdict}")  # fmt: skip
    bad = sum(not each.good for each in found)
    print(f"{sum(t.kills for t in found)} kills in {len(found)} runs: {bad} bad", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
