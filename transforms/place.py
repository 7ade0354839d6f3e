"""All links of a run -> one matrix per tile: the global solve, on one worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.montage.null import Verdict, accept
from warpbeam.kernels.montage.solve import Correspondences, Model, Solution, solve
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.link import by_montage
from warpbeam.transforms.placement import save_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileSource, as_rows, load_sources

Matrices = np.ndarray[Any, Any]

# A link of which the solve leaves at least this share of its weight counts as kept.
KEPT_WEIGHT = 0.5


@dataclass(frozen=True)
class SolveSettings:
    """What may happen to a tile, and how far the stage is trusted."""

    model: Model
    stage_sigma_px: float


@dataclass(frozen=True)
class _Measured:
    """One link as it came from the ledger."""

    fixed: TileKey
    moving: TileKey
    record: Record


def one_solve(links: Ledger, nulls: Ledger) -> Iterator[Unit]:
    """The single unit; its payload changes whenever any link was measured anew."""
    yield ("solve",), digest([links.fingerprint(), nulls.fingerprint()])


class PlaceTiles:
    """Work of the stage `solve`.

    Writes `transforms.json`, `links.parquet` and `tiles.parquet`. Each montage is solved
    by itself; which links are believed is decided over all of them together.
    """

    def __init__(
        self, run: RunFolder, links: Ledger, nulls: Ledger, settings: SolveSettings
    ) -> None:
        self._run, self._links, self._nulls, self._settings = run, links, nulls, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        measured = [
            _Measured(TileKey(*tile), TileKey(*link["moving"]), link)
            for tile, record in self._links.records()
            for link in record["links"]
        ]
        nulls = [score for _, record in self._nulls.records() for score in record["scores"]]
        verdict = accept(np.array([m.record["score"] for m in measured]), np.array(nulls))
        placed: list[PlacedTile] = []
        link_rows: list[dict[str, Any]] = []
        tile_rows: list[dict[str, Any]] = []
        for group in by_montage(load_sources(self._run)).values():
            inside = [i for i, m in enumerate(measured) if m.fixed.montage == group[0].key.montage]
            chosen = [i for i in inside if verdict.accepted[i] and not measured[i].record["reason"]]
            solution = _solve(group, [measured[i] for i in chosen], self._settings)
            placed += [
                PlacedTile(s, as_rows(m)) for s, m in zip(group, solution.matrices, strict=True)
            ]
            seen = [measured[i] for i in inside]
            before = _residuals(group, seen, _stage_matrices(group))
            after = _residuals(group, seen, solution.matrices)
            weight = dict(zip(chosen, link_weights(solution, len(chosen)), strict=True))
            for i, *apart in zip(inside, before, after, strict=True):
                link_rows.append(_link_row(measured[i], verdict, i, weight.get(i, 0.0), apart))
            tile_rows += _tile_rows(group, solution)
        save_placement(self._run, placed)
        tables.write(self._run.table("links"), link_rows)
        tables.write(self._run.table("tiles"), tile_rows)
        return _summary(link_rows, tile_rows, verdict)


def _solve(group: list[TileSource], links: list[_Measured], settings: SolveSettings) -> Solution:
    number = {source.key: i for i, source in enumerate(group)}
    count = [len(m.record["fixed_points"]) for m in links]
    ndim = len(group[0].shape)

    def column(name: str, *shape: int) -> np.ndarray[Any, Any]:
        rows = [np.array(m.record[name], float).reshape(-1, *shape) for m in links]
        return np.concatenate([np.empty((0, *shape)), *rows])

    found = Correspondences(
        np.repeat(np.array([number[m.fixed] for m in links], int), count),
        np.repeat(np.array([number[m.moving] for m in links], int), count),
        column("fixed_points", ndim),
        column("moving_points", ndim),
        column("information", ndim, ndim),
        np.repeat(np.arange(len(links)), count),
    )
    stage = _stage_matrices(group)
    return solve(found, stage, model=settings.model, stage_sigma_px=settings.stage_sigma_px)


def _stage_matrices(group: list[TileSource]) -> Matrices:
    return np.stack([affine.homogeneous(s.stage) for s in group])


def link_weights(solution: Solution, links: int) -> list[float]:
    """What each link is worth, 0 to 1."""
    weights = np.zeros(links)
    known = solution.link_weight[:links]
    weights[: len(known)] = np.nan_to_num(known)
    return weights.tolist()


def _residuals(
    group: list[TileSource], links: list[_Measured], matrices: Matrices
) -> list[float | None]:
    """Per link the mean distance of its two points in the world, px; None without points."""
    number = {source.key: i for i, source in enumerate(group)}
    found: list[float | None] = []
    for link in links:
        points = [np.array(link.record[k], float) for k in ("fixed_points", "moving_points")]
        if not len(points[0]):
            found.append(None)
            continue
        tiles = (number[link.fixed], number[link.moving])
        a, b = (affine.apply(matrices[t], p) for t, p in zip(tiles, points, strict=True))
        found.append(float(np.linalg.norm(a - b, axis=1).mean()))
    return found


def _link_row(
    link: _Measured, verdict: Verdict, i: int, weight: float, apart: list[float | None]
) -> dict[str, Any]:
    record = link.record
    return {
        "time": link.fixed.time,
        "section": link.fixed.section,
        "tile_a": link.fixed.tile,
        "tile_b": link.moving.tile,
        "score": record["score"],
        "p_value": float(verdict.p_value[i]),
        "ncc": record["ncc"],
        "overlap_px": record["overlap"],
        "accepted": bool(verdict.accepted[i]) and not record["reason"],
        "weight": weight,
        "kept": weight >= KEPT_WEIGHT,
        "stage_error_px": apart[0],
        "residual_px": apart[1],
        "reason": record["reason"] or ("" if verdict.accepted[i] else "no better than chance"),
    }


def _tile_rows(group: list[TileSource], solution: Solution) -> list[dict[str, Any]]:
    rows = []
    for source, matrix, part in zip(
        group, solution.matrices, solution.component.tolist(), strict=True
    ):
        middle = (np.array([source.shape], float) - 1) / 2
        stage = affine.apply(affine.homogeneous(source.stage), middle)
        moved = affine.apply(matrix, middle) - stage
        rows.append(
            {
                **source.key._asdict(),
                "file": source.images[0][0],
                "component": part,
                "island": part != 0,
                "moved_px": float(np.linalg.norm(moved)),
                "shape": list(source.shape),
                "stage": [list(row) for row in source.stage],
                "matrix": matrix.tolist(),
            }
        )
    return rows


def _summary(links: list[dict[str, Any]], tiles: list[dict[str, Any]], verdict: Verdict) -> Record:
    kept = np.array([r["residual_px"] for r in links if r["kept"]])
    before = np.array([r["stage_error_px"] for r in links if r["kept"]])
    return {
        "tiles": len(tiles),
        "links": len(links),
        "links_kept": len(kept),
        "links_rejected": len(links) - len(kept),
        "score_threshold": verdict.threshold,
        "islands": len({(r["time"], r["section"], r["component"]) for r in tiles if r["island"]}),
        "island_tiles": sum(r["island"] for r in tiles),
        "stage_error_median_px": float(np.median(before)) if len(kept) else None,
        "stage_error_max_px": float(before.max()) if len(kept) else None,
        "residual_median_px": float(np.median(kept)) if len(kept) else None,
        "residual_max_px": float(kept.max()) if len(kept) else None,
        "moved_median_px": float(np.median([r["moved_px"] for r in tiles])),
        "moved_max_px": float(np.max([r["moved_px"] for r in tiles])),
    }
