"""Points of overlapping tiles -> a map per tile: a unit per montage, then one index of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.fuse.bend import farthest
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.maps.irregular import folded
from warpbeam.kernels.mesh.tiles import PointPairs, TileMeshes, relax_tiles
from warpbeam.transforms.bends import save_index, save_map
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.overlap_flow import load_points
from warpbeam.transforms.placement import load_placement, tile_name
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

Array = np.ndarray[Any, Any]

# A montage in which a tile folds is solved again, stiffer, so many times.
_RETRIES = 3
_STIFFER = 2.0


@dataclass(frozen=True)
class MeshSettings:
    """How far tiles bend.

    Attributes:
        stride: voxels between nodes, array order.
        bending_px: see `kernels.mesh.tiles`.
        anchor: see `kernels.mesh.tiles`.
        voxel: size of a voxel, array order.
        unit: of that size; None where it is not known.
    """

    stride: tuple[int, ...]
    bending_px: float
    anchor: float
    voxel: tuple[float, ...]
    unit: str | None


def list_montages(run: RunFolder, flows: Ledger) -> Iterator[Unit]:
    """A unit per montage; its payload changes whenever a flow or a position in it does."""
    measured: dict[MontageKey, list[Any]] = defaultdict(list)
    for key, mark in flows.marks().items():
        measured[MontageKey(*key[:2])].append((key, mark))
    for key, tiles in _montages(run).items():
        yield (
            key,
            digest([measured[key], [(t.source.key, t.source.shape, t.matrix) for t in tiles]]),
        )


def _montages(run: RunFolder) -> dict[MontageKey, list[PlacedTile]]:
    found: dict[MontageKey, list[PlacedTile]] = defaultdict(list)
    for placed in load_placement(run):
        found[placed.source.key.montage].append(placed)
    return found


class RelaxTiles:
    """Work of the stage `mesh`: all tiles of one montage.

    Writes the maps of the tiles that are bent. Record: an entry of the index per map, what is
    left of each link, and the tiles that fold however stiff they are, which stay straight.
    """

    def __init__(self, run: RunFolder, flows: Ledger, settings: MeshSettings) -> None:
        self._run, self._flows, self._settings = run, flows, settings

    def __call__(self, key: MontageKey, payload: Any) -> Record:
        montages = _montages(self._run)
        tiles = montages[MontageKey(*key)]
        number = {placed.source.key: i for i, placed in enumerate(tiles)}
        links = [
            (number[TileKey(*flow[:3])], number[TileKey(flow[0], flow[1], flow[3])],
             *load_points(self._run, flow))
            for flow, record in self._flows.records()
            if tuple(flow[:2]) == tuple(key) and record["points"]
        ]  # fmt: skip
        pairs = _pairs(tiles, links)
        maps, meshes, bending = self._relaxed(tiles, pairs)
        linked = set(pairs.first[meshes.kept > 0]) | set(pairs.second[meshes.kept > 0])
        bent = [i for i in sorted(linked) if not folded(maps[i]).any()]
        alone = len(montages) <= 1
        entries = {i: self._store(tiles[i], maps[i], one_montage=alone) for i in bent}
        return {
            "bytes_written": sum(entry.pop("bytes") for entry in entries.values()),
            "tiles": [[tiles[i].source.key, entry] for i, entry in entries.items()],
            "links": _left(tiles, pairs, meshes),
            "folded": [tiles[i].source.key for i in sorted(linked - set(bent))],
            "points": len(pairs),
            "points_kept": int((meshes.kept > 0).sum()),
            "scale_px": meshes.scale_px,
            "bending_px": bending,
            "converged": meshes.converged,
        }

    def _relaxed(
        self, tiles: Sequence[PlacedTile], pairs: PointPairs
    ) -> tuple[list[CoordinateMap], TileMeshes, float]:
        """Forward map of each tile, and the stiffness at which none of them folds."""
        lattices = [_lattice(placed, self._settings.stride) for placed in tiles]
        bending = self._settings.bending_px
        for _ in range(1 + _RETRIES):
            meshes = relax_tiles(lattices, pairs, bending_px=bending, anchor=self._settings.anchor)
            maps = [_map(*one) for one in zip(tiles, lattices, meshes.offsets, strict=True)]
            if not any(folded(m).any() for m in maps):
                break
            bending *= _STIFFER
        return maps, meshes, bending

    def _store(self, placed: PlacedTile, m: CoordinateMap, *, one_montage: bool) -> dict[str, Any]:
        name = tile_name(placed.source.key, one_montage=one_montage)
        written = save_map(self._run, name, m, self._settings.voxel, self._settings.unit)
        low, high = _bounds(placed, m)
        return {
            "name": name,
            "digest": digest([placed.matrix, m.u.tolist()]),
            "bounds": [low, high],
            "reach": farthest(m),
            "bent_px": float(np.linalg.norm(m.u, axis=0).max()),
            "bytes": written,
        }


def _lattice(placed: PlacedTile, stride: Sequence[int]) -> Lattice:
    """Nodes around every voxel of a tile, at least two on each axis."""
    box = Box.of_shape(tuple(max(n, 2) for n in placed.source.shape))
    return Lattice.covering(box, stride)


def _pairs(
    tiles: Sequence[PlacedTile], links: Sequence[tuple[int, int, Array, Array]]
) -> PointPairs:
    ndim = len(tiles[0].source.shape)
    matrices = [affine.homogeneous(placed.matrix) for placed in tiles]
    none = np.empty((0, ndim))
    count = [len(p) for _, _, p, _ in links]
    apart = [affine.apply(matrices[a], p) - affine.apply(matrices[b], q) for a, b, p, q in links]
    return PointPairs(
        np.repeat(np.array([a for a, *_ in links], np.int64), count),
        np.repeat(np.array([b for _, b, *_ in links], np.int64), count),
        np.concatenate([none, *(p for _, _, p, _ in links)]),
        np.concatenate([none, *(q for _, _, _, q in links)]),
        np.concatenate([none, *apart]),
        np.ones(sum(count)),
    )


def _map(placed: PlacedTile, lattice: Lattice, offsets: Array) -> CoordinateMap:
    """From a tile to the straightened tile: the offsets as voxels of the tile, float32."""
    linear = np.linalg.inv(affine.homogeneous(placed.matrix)[:-1, :-1])
    return on_lattice(np.tensordot(linear, offsets, 1).astype(np.float32), lattice)


def _bounds(placed: PlacedTile, m: CoordinateMap) -> tuple[list[int], list[int]]:
    """The world voxels that the centres of the voxels of a bent tile can lie on."""
    last = np.array(placed.source.shape, float)[:, None] - 1
    points = np.clip(m.lattice.nodes().reshape(m.ndim, -1), 0, last)
    straight = points + offsets_at(m, points, "nearest")
    world = affine.apply(affine.homogeneous(placed.matrix), straight.T)
    low = np.ceil(world.min(axis=0) - 1e-6).astype(int)
    high = np.floor(world.max(axis=0) + 1e-6).astype(int) + 1
    return low.tolist(), high.tolist()


def _left(tiles: Sequence[PlacedTile], pairs: PointPairs, meshes: TileMeshes) -> list[list[Any]]:
    """Per link: both tiles, the mean distance of its points before and after, how many."""
    rows: list[list[Any]] = []
    believed = meshes.kept > 0
    link = pairs.first * len(tiles) + pairs.second
    for which in np.unique(link):
        mine = believed & (link == which)
        a, b = (tiles[i].source.key for i in divmod(int(which), len(tiles)))
        before, after = (
            float(np.linalg.norm(left[mine], axis=1).mean()) if mine.any() else None
            for left in (pairs.apart, meshes.apart)
        )
        rows.append([a, b.tile, before, after, int(mine.sum())])
    return rows


def one_index(meshes: Ledger, solve: Ledger) -> Iterator[Unit]:
    """The single unit; its payload changes whenever a montage was solved anew."""
    yield ("maps",), digest([meshes.fingerprint(), solve.fingerprint()])


class IndexMaps:
    """Work of the stage `maps`: which tiles are bent, and what is left of every link.

    Adds the columns `flow_px`, `residual_elastic_px` and `points` to `links.parquet`.
    """

    def __init__(self, run: RunFolder, meshes: Ledger) -> None:
        self._run, self._meshes = run, meshes

    def __call__(self, key: Key, payload: Any) -> Record:
        records = [record for _, record in self._meshes.records()]
        bent = {TileKey(*tile): entry for r in records for tile, entry in r["tiles"]}
        left = {(*a, b): values for r in records for a, b, *values in r["links"]}
        save_index(self._run, bent)
        rows = tables.read(self._run.table("links"))
        for row in rows:
            found = left.get((row["time"], row["section"], row["tile_a"], row["tile_b"]))
            row["flow_px"], row["residual_elastic_px"], row["points"] = found or (None, None, 0)
        tables.write(self._run.table("links"), rows)
        return _summary(records, bent, left)


def _summary(
    records: Sequence[Record], bent: dict[TileKey, Any], left: dict[Any, list[Any]]
) -> Record:
    before, after = (np.array([v[i] for v in left.values() if v[i] is not None]) for i in range(2))
    offsets = [entry["bent_px"] for entry in bent.values()]
    return {
        "tiles_bent": len(bent),
        "tiles_folded": sum(len(r["folded"]) for r in records),
        "meshes_unsettled": sum(not r.get("converged", True) for r in records),
        "points": sum(r["points"] for r in records),
        "points_kept": sum(r["points_kept"] for r in records),
        "flow_median_px": float(np.median(before)) if len(before) else None,
        "residual_elastic_median_px": float(np.median(after)) if len(after) else None,
        "residual_elastic_max_px": float(after.max()) if len(after) else None,
        "bent_median_px": float(np.median(offsets)) if offsets else None,
        "bent_max_px": float(np.max(offsets)) if offsets else None,
    }
