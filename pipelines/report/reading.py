"""What a run left in its folder, as the report needs it. Level 0 is never read in whole."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.transforms.canvas import Canvas, load_canvas
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run, read.

    Attributes:
        folder: where it lies.
        summary: `run.json`.
        placed: its tiles with their matrices; none before the solve.
        links: rows of `links.parquet`; none where nothing was linked.
        tiles: rows of `tiles.parquet`.
        nulls: scores of strips that cannot match.
        canvas: where the tiles lie on the volume; None before there is one.
    """

    folder: RunFolder
    summary: dict[str, Any]
    placed: tuple[PlacedTile, ...]
    links: tuple[Row, ...]
    tiles: tuple[Row, ...]
    nulls: tuple[float, ...]
    canvas: Canvas | None

    @property
    def numbers(self) -> dict[str, Any]:
        """What the job measured."""
        return self.summary["numbers"]

    @property
    def failures(self) -> list[Row]:
        """Units that could not be done: `stage`, `key`, `error`, `cause`."""
        return self.summary["failures"]

    @functools.cached_property
    def montages(self) -> dict[MontageKey, list[PlacedTile]]:
        """The tiles that were placed together, in order of time and section."""
        groups: dict[MontageKey, list[PlacedTile]] = {}
        for placed in sorted(self.placed, key=lambda p: p.source.key.montage):
            groups.setdefault(placed.source.key.montage, []).append(placed)
        return groups

    def montage_name(self, key: MontageKey) -> str:
        """A montage in words: without the time where all have the same."""
        several = len({k.time for k in self.montages}) > 1
        return (f"time {key.time}, " if several else "") + f"section {key.section}"

    @functools.cached_property
    def tile_of(self) -> dict[TileKey, PlacedTile]:
        return {placed.source.key: placed for placed in self.placed}

    @functools.cached_property
    def links_of(self) -> dict[MontageKey, list[Row]]:
        groups: dict[MontageKey, list[Row]] = {}
        for row in self.links:
            groups.setdefault(MontageKey(row["time"], row["section"]), []).append(row)
        return groups

    @functools.cached_property
    def islands(self) -> frozenset[TileKey]:
        """Tiles that no believed link joins to the largest part of their montage."""
        rows = (r for r in self.tiles if r["island"])
        return frozenset(TileKey(r["time"], r["section"], r["tile"]) for r in rows)

    @functools.cached_property
    def failed_tiles(self) -> frozenset[TileKey]:
        """Tiles on which a stage failed."""
        keys = (f["key"] for f in self.failures)
        return frozenset(TileKey(*k) for k in keys if len(k) == 3 and isinstance(k[2], str))

    @property
    def failed_shards(self) -> list[tuple[int, ...]]:
        """Blocks (tczyx) of the volume that could not be fused."""
        return [tuple(f["key"][1]) for f in self.failures if f["stage"] == "fuse"]

    def worst_first(self) -> list[MontageKey]:
        """Montages with failures, islands, rejected links or large residuals before the rest."""
        troubled = {k.montage for k in self.failed_tiles | self.islands}

        def rank(key: MontageKey) -> tuple[Any, ...]:
            rows = self.links_of.get(key, [])
            rejected = sum(not r["kept"] for r in rows)
            worst = max((r["residual_px"] or 0.0 for r in rows if r["kept"]), default=0.0)
            return key not in troubled, -rejected, -worst, key

        return sorted(self.montages, key=rank)

    def on_middle_plane(self, tiles: list[PlacedTile]) -> list[PlacedTile]:
        """Three-dimensional tiles that cross the middle plane of the volume; else all."""
        if self.canvas is None or self.canvas.ndim == 2:
            return tiles
        return self.on_plane(tiles, self.canvas.shape[2] // 2)

    def on_plane(self, tiles: list[PlacedTile], z: int) -> list[PlacedTile]:
        """Three-dimensional tiles that cross a plane of the volume."""
        first = self.canvas.origin[0] if self.canvas else 0
        return [p for p in tiles if _crosses(p, first + z)]


def _crosses(placed: PlacedTile, z: int) -> bool:
    depth = placed.source.shape[0]
    middle = [(n - 1) / 2 for n in placed.source.shape[1:]]
    ends = affine.apply(
        affine.homogeneous(placed.matrix), np.array([[-0.5, *middle], [depth - 0.5, *middle]])
    )[:, 0]
    return bool(ends.min() <= z <= ends.max())


def outline(placed: PlacedTile) -> np.ndarray[Any, Any]:
    """The four corners (y, x) of a tile's area in the world; its middle plane in 3-D."""
    *depth, height, width = placed.source.shape
    middle = [(n - 1) / 2 for n in depth]
    square = ((-0.5, -0.5), (-0.5, width - 0.5), (height - 0.5, width - 0.5), (height - 0.5, -0.5))
    corners = np.array([[*middle, *corner] for corner in square])
    return affine.apply(affine.homogeneous(placed.matrix), corners)[:, -2:]


def read_run(uri: str | os.PathLike[str]) -> Run:
    """Reads a run's folder.

    Raises:
        InputError: there is no run.
    """
    place = os.fspath(uri)
    summary = store.read_json(store.join(place, "run.json"))
    if summary is None:
        raise InputError(
            "there is no run to report on",
            where=place,
            expected="the folder of a run, with run.json in it",
            got="a folder without it" if store.exists(place) else "nothing",
            fix="give the output folder of `warpbeam stitch`, `align`, `fuse` or `register`",
        )
    folder = RunFolder(place, summary["config"]["volume"]["format"])
    solved = store.read_bytes(folder.transforms) is not None
    return Run(
        folder,
        summary,
        tuple(load_placement(folder)) if solved else (),
        tuple(tables.read(folder.table("links"))),
        tuple(tables.read(folder.table("tiles"))),
        _nulls(place, summary.get("stages", {})),
        load_canvas(folder) if store.read_bytes(folder.canvas) is not None else None,
    )


def _nulls(uri: str, stages: dict[str, str]) -> tuple[float, ...]:
    if "null" not in stages:
        return ()
    records = Ledger(uri, "null", stages["null"]).records()
    return tuple(score for _, record in records for score in record["scores"])
