"""Cells followed over time: a unit per well, a number per cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from warpbeam.kernels.segment.track import Cells, TrackSettings, identities
from warpbeam.transforms.segment.files import load_sites, objects_uri, tracks_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Ledger, Record, key_name
from warpbeam.transforms.storage.plate import SiteKey

Array = np.ndarray[Any, Any]


def list_wells(run: str, segmented: Ledger) -> Iterator[Unit]:
    """A unit per well: its sites that were segmented, and their marks."""
    marks, wells = segmented.done(), dict[tuple[str, str], list[Any]]()
    for site in load_sites(run):
        if (mark := marks.get(key_name(site.key))) is not None:
            wells.setdefault(site.key[:2], []).append([site.key, mark])
    yield from wells.items()


class TrackWell:
    """Work of the stage `track`: the cells of one well. Payload: `[[site key, mark], …]`.

    Numbers go through all tiles of the well, so that none is given twice in it.
    """

    def __init__(self, run: str, settings: TrackSettings, channel: str) -> None:
        self._run, self._settings, self._channel = run, settings, channel

    def __call__(self, key: tuple[str, str], payload: Any) -> Record:
        keys = sorted((SiteKey(*k) for k, _ in payload), key=lambda k: (k.tile, k.timepoint))
        tiles: dict[int, list[SiteKey]] = {}
        for site in keys:
            tiles.setdefault(site.tile, []).append(site)
        parts: list[dict[str, Array]] = []
        offset = 0
        for sites in tiles.values():
            found = identities([self._cells(site) for site in sites], self._settings)
            for site, own in zip(sites, found, strict=True):
                place = {"timepoint": site.timepoint, "tile": site.tile}
                parts.append({
                    **{name: np.full(own.size, value) for name, value in place.items()},
                    "label": np.arange(1, own.size + 1),
                    "cellid": own + offset,
                })  # fmt: skip
            offset += max((int(own.max(initial=0)) for own in found), default=0)
        table = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        written = tables.write_columns(tracks_uri(self._run, key), table)
        return {"cells": offset, "bytes_written": written}

    def _cells(self, site: SiteKey) -> Cells:
        columns = tables.read_columns(objects_uri(self._run, site))
        return cells_of(columns, columns[f"{self._channel}:intensity_mean"])


def cells_of(columns: Mapping[str, Array], brightness: Array) -> Cells:
    """Objects as cells: area and brightness are what a cell keeps."""
    traits = np.stack([columns["area"], brightness], axis=1)
    return Cells(
        np.stack([columns["centroid_y"], columns["centroid_x"]], axis=1),
        np.log2(np.maximum(traits, 1.0)),
    )


def cell_numbers(run: str, key: SiteKey) -> Array:
    """The number of each object of a site, in the order of their labels.

    Raises:
        FileNotFoundError: the well was not tracked.
    """
    table = tables.read_columns(tracks_uri(run, key[:2]))
    mine = (table["timepoint"] == key.timepoint) & (table["tile"] == key.tile)
    found: Array = table["cellid"][mine]
    return found
