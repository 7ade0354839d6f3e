"""Rows per second into the database, with the schema's keys and indices: SQLite and PostgreSQL.

    python tests/benchmarks/database_speed.py --json

Sites of 444 objects with two channels, a transaction each, through the function that the job
calls, into a database that grows; PostgreSQL through a server started here, with fsync on, where
it is installed. On a busy machine the wall clock says little: rows per second of CPU, of client
and server together, are given too. A commit per row, as in a naive program, is measured on a few.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "helpers")]

import conftest  # noqa: F401
import numpy as np
import postgres
import psutil

from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.database.connect import engine, open_database
from warpbeam.transforms.storage.database.write import SiteRows, replace_site

OBJECTS, CHANNELS = 444, ("nuclei", "actin")


def site(number: int) -> SiteRows:
    rng = np.random.default_rng(number)
    whole = [c.name for c in schema.CELL.columns
             if c.name in ("area", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")]  # fmt: skip
    real = [c.name for c in schema.CELL.columns if isinstance(c.type, schema.sa.Double)]
    cells: dict[str, Any] = {"randomcellid": np.arange(1, OBJECTS + 1)}
    cells |= {name: rng.integers(0, 2048, OBJECTS) for name in whole}
    cells |= {name: rng.uniform(0, 2048, OBJECTS) for name in real}
    greys = {name: rng.uniform(0, 65535, OBJECTS) for name in schema.GREYS}
    return SiteRows(
        "speed", f"A{number // 4 % 12 + 1}", number // 48, (number % 4 + 1,), CHANNELS[0], CHANNELS,
        {name: {"filename": f"{name}.tif"} for name in CHANNELS}, cells,
        dict.fromkeys(CHANNELS, greys),
    )  # fmt: skip


def cpu_seconds() -> float:
    """Of this process and of the server, which is its child."""
    own = psutil.Process()
    times = [p.cpu_times() for p in (own, *own.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def rows_per_second(url: str, sites: int) -> dict[str, float]:
    """First into an empty database, then all again in place of what is there."""
    open_database(url)
    made, found = [site(k) for k in range(sites)], {}
    replace_site(url, made[0])
    for name in ("new", "replaced"):
        began, used = time.perf_counter(), cpu_seconds()
        rows = sum(replace_site(url, each) for each in made)
        found[name] = round(rows / (time.perf_counter() - began))
        found[f"{name}_per_cpu_s"] = round(rows / (cpu_seconds() - used))
    engine(url).dispose()
    return found


def commit_per_row(path: Path, rows: int) -> int:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE cells (id INTEGER PRIMARY KEY, area REAL)")
    began = time.perf_counter()
    for k in range(rows):
        connection.execute("INSERT INTO cells VALUES (?, ?)", (k, 1.0))
        connection.commit()
    return round(rows / (time.perf_counter() - began))


def run(sites: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = {
            "rows": sites * OBJECTS * (1 + len(CHANNELS)),
            "sqlite_rows_per_s": rows_per_second(f"sqlite:///{name}/plate.sqlite", sites),
            "commit_per_row_rows_per_s": commit_per_row(Path(name) / "rows.sqlite", 100),
        }
    if reason := postgres.missing():
        return found | {"postgresql": reason}
    with postgres.server(durable=True) as url:
        return found | {"postgresql_rows_per_s": rows_per_second(url, sites)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sites", type=int, default=192)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments.sites)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
