"""The OME-Zarr plate before there is anything in it: arrays of every tile, then the groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from warpbeam.transforms.segment.files import load_sites
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.ledger import Record, digest
from warpbeam.transforms.storage.plate import Plate, Site
from warpbeam.transforms.storage.plate.hcs import PlateSettings, create_field, create_plate


def list_experiments(run: str) -> Iterator[Unit]:
    """A unit per experiment, with its sites."""
    groups: dict[str, list[Site]] = {}
    for site in load_sites(run):
        groups.setdefault(site.key.experiment, []).append(site)
    for experiment, sites in groups.items():
        yield (experiment,), digest([[site.key, site.shape] for site in sites])


class LayOutPlate:
    """Work of the stage `layout`: the plate of one experiment."""

    def __init__(self, run: str, settings: PlateSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: tuple[str], payload: Any) -> Record:
        sites = [site for site in load_sites(self._run) if site.key.experiment == key[0]]
        fields: dict[tuple[str, int], list[Site]] = {}
        for site in sites:
            fields.setdefault((site.key.well, site.key.tile), []).append(site)
        for found in fields.values():
            create_field(self._run, self._settings, found)
        plate = Plate(tuple(sites), self._settings.channels, self._settings.dtype, None)
        create_plate(self._run, self._settings, plate, key[0])
        return {"fields": len(fields)}
