"""The solution file: one matrix per tile, written by one worker and read by all later ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileSource, load_sources


def tile_name(key: TileKey, *, one_montage: bool) -> str:
    """How a tile is called in `transforms.json`: by its id where that is enough."""
    return key.tile if one_montage else f"{key.time}/{key.section}/{key.tile}"


def _is_one_montage(sources: Iterable[TileSource]) -> bool:
    return len({s.key.montage for s in sources}) <= 1


def save_placement(run: RunFolder, placed: list[PlacedTile]) -> None:
    """Writes `transforms.json`."""
    alone = _is_one_montage(p.source for p in placed)
    store.write_json(
        run.transforms,
        {tile_name(p.source.key, one_montage=alone): {"matrix": p.matrix} for p in placed},
    )


def load_placement(run: RunFolder) -> Iterator[PlacedTile]:
    """The placed tiles of a run in order of their rows; tiles without a matrix are left out."""
    matrices = store.read_json(run.transforms)
    sources = list(load_sources(run))
    alone = _is_one_montage(sources)
    for source in sources:
        entry = matrices.get(tile_name(source.key, one_montage=alone))
        if entry is not None:
            yield PlacedTile(source, tuple(map(tuple, entry["matrix"])))
