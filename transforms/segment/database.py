"""Rows of a site from the run's files into the database, a transaction per site."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from warpbeam.transforms.segment.files import load_sites, mask_uri, objects_uri, puncta_uri
from warpbeam.transforms.segment.track import cell_numbers
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.ledger import Ledger, Record, key_name
from warpbeam.transforms.storage.plate import Site, SiteKey
from warpbeam.transforms.storage.tiles.natural import natural

Columns = dict[str, Any]


def list_segmented(run: str, segmented: Ledger, tracked: Ledger | None) -> Iterator[Unit]:
    """A unit per site that was segmented: the site, the mark of what was found, and that of
    the tracking of its well."""
    marks = segmented.done()
    tracks = tracked.done() if tracked is not None else {}
    for site in load_sites(run):
        if (mark := marks.get(key_name(site.key))) is not None:
            yield site.key, [site.to_json(), mark, tracks.get(key_name(site.key[:2]))]


class StoreRows:
    """Work of the stage `database`: one site. Payload: as `list_segmented` says.

    A site of a well whose tracking failed is stored without numbers of cells.

    Args:
        run: the run's folder.
        url: of the database.
        channel: in which the objects were found.
        tiff: whether there is a mask as TIFF, whose address is stored.
        puncta: whether there are spots.
    """

    def __init__(self, run: str, url: str, channel: str, *, tiff: bool, puncta: bool) -> None:
        self._run, self._url, self._channel = run, url, channel
        self._tiff, self._puncta = tiff, puncta

    def __call__(self, key: SiteKey, payload: Any) -> Record:
        from warpbeam.transforms.storage.database.write import SiteRows, replace_site

        site = Site.from_json(payload[0])
        columns = tables.read_columns(objects_uri(self._run, site.key))
        spots = tables.read_columns(puncta_uri(self._run, site.key)) if self._puncta else {}
        cells = cell_numbers(self._run, site.key) if payload[2] is not None else None
        mask = _mask(self._run, site.key, self._channel) if self._tiff else None
        rows = SiteRows(
            site.key.experiment,
            site.key.well,
            site.key.timepoint,
            site.tiles,
            self._channel,
            site.channels,
            tile_columns(site, self._channel, mask),
            {**cell_columns(columns, montage=site.montage), "cellid": cells},
            {channel: greys_of(columns, channel) for channel in site.channels},
            *(puncta_columns(spots, site.channels) if spots else ()),
        )
        return {"rows": replace_site(self._url, rows)}


def discard_objects(run: str, url: str, channel: str | None) -> None:
    """Deletes the objects of a run from a database, as far as their masks tell whose they are.

    Args:
        run: the run's folder.
        url: of the database.
        channel: in which they were found; None for the first.
    """
    from warpbeam.transforms.storage.database.write import remove_objects

    sites = list(load_sites(run))
    first = min((name for site in sites for name in site.channels), key=natural, default="")
    remove_objects(url, [_mask(run, site.key, channel or first) for site in sites])


def _mask(run: str, key: SiteKey, channel: str) -> str:
    """The address of a mask as the database has it."""
    uri = mask_uri(run, key, channel)
    return str(store.local_path(uri) or uri)


def tile_columns(site: Site, segmented: str, mask: str | None) -> dict[str, Columns]:
    """Columns of `tiledata` for each channel: a montage's file and mask have columns of their own.

    Masks that another run made of the other channels stay theirs.
    """
    names = ("newimagemontage", "alignedmontagemaskpath")
    if not site.montage:
        names = ("filename", "maskpath")
    found: dict[str, Columns] = {
        image.channel: {
            "hours": site.hours, "zstep": image.plane, names[0]: _anywhere(image.file)
        }
        for image in site.images
    }  # fmt: skip
    found[segmented][names[1]] = mask
    return found


def _anywhere(file: str) -> str:
    """The address of a file from any folder."""
    return file if "://" in file or "|" in file else os.path.abspath(file)


def cell_columns(columns: Columns, *, montage: bool) -> Columns:
    """Columns of `celldata`: all but the label and the grey values go by their own names."""
    own = {k: v for k, v in columns.items() if ":" not in k and k != "label"}
    label = columns["label"]
    return {"randomcellid": label, "randomcellid_montage": label if montage else None, **own}


def greys_of(columns: Columns, channel: str) -> Columns:
    """The grey values of one channel: `CHANNEL:intensity_mean` -> `intensity_mean`."""
    prefix = f"{channel}:"
    return {k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)}


def puncta_columns(
    spots: Columns, channels: tuple[str, ...]
) -> tuple[Mapping[str, Columns], Mapping[str, Mapping[str, Columns]]]:
    """Spots by channel, and by channel and measured channel their grey values."""
    shapes: dict[str, Columns] = {}
    greys: dict[str, dict[str, Columns]] = {}
    for channel in dict.fromkeys(spots["channel"].tolist()):
        mine = np.flatnonzero(spots["channel"] == channel)
        part = {name: values[mine] for name, values in spots.items()}
        shapes[channel] = {k: v for k, v in part.items() if ":" not in k and k != "channel"}
        greys[channel] = {measured: greys_of(part, measured) for measured in channels}
    return shapes, greys
