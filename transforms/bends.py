"""The coordinate maps of bent tiles, as the later stages read them.

`maps/TILE.ome.zarr` leads from voxels of a tile to voxels of the straightened tile, which the
matrix in `transforms.json` places. A tile without a map is straight.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from warpbeam.kernels.fuse.bend import Bend
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import displacements, store
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.ledger import key_name
from warpbeam.transforms.storage.run_folder import RunFolder

# Inverse maps that a worker keeps; those of the tiles around it are used again.
_KEPT = 64


def save_map(
    run: RunFolder, name: str, m: CoordinateMap, voxel: tuple[float, ...], unit: str | None
) -> int:
    """Stores the forward map of a tile under its name in `transforms.json`; returns its bytes."""
    stored = DisplacementField(_uri(run, name), m.lattice, voxel, unit)
    stored.create()
    return stored.write(m)


def save_index(run: RunFolder, bent: Mapping[TileKey, dict[str, Any]]) -> None:
    """Stores which tiles are bent: the name and a digest of the map of each, and its bounds."""
    store.write_json(run.bends, {key_name(key): entry for key, entry in bent.items()})


def _uri(run: RunFolder, name: str) -> str:
    return run.map(quote(name, safe="/"))


class BendReader:
    """How each tile is bent; one per worker, because it keeps what it has read."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._bend = functools.lru_cache(maxsize=_KEPT)(self._read)

    @functools.cached_property
    def _index(self) -> dict[str, dict[str, Any]]:
        return store.read_json(self._run.bends) or {}

    def of(self, key: TileKey) -> Bend | None:
        """The inverse map of a tile; None where it is straight."""
        entry = self._index.get(key_name(key))
        return None if entry is None else self._bend(entry["name"])

    def bounds(self, key: TileKey) -> Box | None:
        """The world voxels that a bent tile covers; None where it is straight."""
        entry = self._index.get(key_name(key))
        return None if entry is None else Box(*(tuple(end) for end in entry["bounds"]))

    def reach(self, key: TileKey) -> int:
        """How far, in voxels of the tile, bending moves a voxel."""
        entry = self._index.get(key_name(key))
        return 0 if entry is None else entry["reach"]

    def fingerprint(self, keys: Iterable[TileKey]) -> list[str]:
        """Changes whenever the map of one of these tiles does; empty where all are straight."""
        entries = (self._index.get(key_name(key)) for key in keys)
        return [entry["digest"] for entry in entries if entry is not None]

    def _read(self, name: str) -> Bend:
        return Bend.of(displacements.load(_uri(self._run, name)).read())
