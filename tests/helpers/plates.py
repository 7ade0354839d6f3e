"""Small plates of discs whose places are known."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from running import _run, object_hashes

from warpbeam.pipelines.job import Outcome
from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.database.read import read_table

SHAPE = (96, 120)


def discs(seed: int, shape: tuple[int, int] = SHAPE, count: int = 6) -> np.ndarray:
    """Labels of discs that lie apart from one another, numbered as they were drawn."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for k in range(1, count + 1):
        for _ in range(200):
            cy, cx, r = (*rng.uniform(9, np.subtract(shape, 9)), rng.uniform(5, 9))
            far = (y - cy) ** 2 + (x - cx) ** 2
            if not labels[far < (r + 3) ** 2].any():
                labels[far < r * r] = k
                break
    return labels


def picture(labels: np.ndarray, seed: int, bright: float = 1500.0) -> np.ndarray:
    """uint16: bright discs of unequal height on a dark, noisy background."""
    rng = np.random.default_rng([seed, 1])
    heights = np.append(0, bright * rng.uniform(0.7, 1.3, int(labels.max())))
    return (300 + heights[labels] + rng.normal(0, 20, labels.shape)).astype(np.uint16)


def write_plate(
    folder: Path,
    *,
    wells: Sequence[str] = ("A1", "B2"),
    times: int = 1,
    tiles: int = 2,
    channels: Sequence[str] = ("nuclei", "actin"),
    **columns: Any,
) -> Path:
    """The images of a plate and its table `plate.csv`; further columns are the same in each row."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    sites = itertools.product(wells, range(times), range(1, tiles + 1))
    for seed, (well, time, tile) in enumerate(sites):
        labels = discs(seed)
        for k, channel in enumerate(channels):
            name = f"{well}_T{time}_{tile}_{channel}.tif"
            tifffile.imwrite(folder / name, picture(labels, 10 * seed + k, 1500.0 - 700 * k))
            rows.append({"well": well, "timepoint": time, "tile": tile, "channel": channel,
                         "file": name, **columns})  # fmt: skip
    return write_rows(folder / "plate.csv", rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def segment(plate: Path, output: Path, flags: Sequence[str] = (), **settings: Any) -> Outcome:
    """`segment` with two workers and nuclei as the channel, unless `settings` say otherwise."""
    from warpbeam.pipelines import segment
    from warpbeam.pipelines.segment_config import SegmentConfig

    settings["threshold"] = {"channel": "nuclei"} | settings.get("threshold", {})
    return _run(segment.run, SegmentConfig, plate, output, flags, settings)


def rows_of(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run's own database."""
    return rows_at(f"sqlite:///{run / 'plate.sqlite'}")


def rows_at(url: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, keys included, which are made from what a row is.

    Two things differ between runs that found the same. The table with the mark of the database
    is left out: the mark is drawn so that no other database has it. Of the address of a mask the
    file's name alone is given: the folder before it is the run's.
    """
    names = [name for name in schema.METADATA.tables if name != schema.ABOUT.name]
    found = {name: read_table(url, name) for name in names}
    for row in found["tiledata"]:
        row["maskpath"] = row["maskpath"] and os.path.basename(row["maskpath"])
    return found


def masks_of(run: Path) -> dict[str, str]:
    """The masks of a run by their content."""
    return object_hashes(run / "masks")


def plate_and_run(folder: Path) -> tuple[Path, Path]:
    """The table of a plate, and a plain run over it."""
    table = write_plate(folder / "images", times=2)
    segment(table, folder / "plain")
    return table, folder / "plain"
