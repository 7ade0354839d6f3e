"""Where the files of a segmentation lie in a run's folder, and which sites it has."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import FOLDER, key_name
from warpbeam.transforms.storage.plate import Plate, Site, SiteKey


def sites_uri(run: str) -> str:
    return store.join(run, FOLDER, "sites.json")


def save_sites(run: str, plate: Plate) -> None:
    """Stores the chosen sites for the workers."""
    store.write_json(sites_uri(run), [site.to_json() for site in plate.sites])


def load_sites(run: str) -> Iterator[Site]:
    return map(Site.from_json, store.read_json(sites_uri(run)) or [])


def save_mark(run: str, name: str, mark: str) -> None:
    """Stores what tells whether a run goes on as it was: the mark of its database, or of what all
    of its sites have in common."""
    store.write_json(_mark_uri(run, name), mark)


def load_mark(run: str, name: str) -> str | None:
    mark: str | None = store.read_json(_mark_uri(run, name))
    return mark


def _mark_uri(run: str, name: str) -> str:
    return store.join(run, FOLDER, f"{name}.json")


def mask_uri(run: str, key: SiteKey, channel: str) -> str:
    """The mask of a site, by the name that the Finkbeiner lab's programs look for."""
    name = f"{key.name}_{quote(channel, safe=' ')}_ENCODED.tif"
    return store.join(run, "masks", quote(key.experiment, safe=" "), key.well, name)


def tracked_uri(run: str, key: SiteKey, channel: str) -> str:
    """The mask of a site with the numbers of cells in place of those of objects."""
    name = f"{key.name}_{quote(channel, safe=' ')}_TRACKED.tif"
    return store.join(run, "tracked", quote(key.experiment, safe=" "), key.well, name)


def crops_uri(run: str, key: SiteKey) -> str:
    """The squares around the objects of a site."""
    return store.join(run, "crops", quote(key.experiment, safe=" "), key.well, f"{key.name}.tif")


def objects_uri(run: str, key: SiteKey) -> str:
    """Objects of a site, a row each."""
    return store.join(run, FOLDER, "objects", f"{key_name(key)}.arrow")


def puncta_uri(run: str, key: SiteKey) -> str:
    """Spots of a site, a row each."""
    return store.join(run, FOLDER, "puncta", f"{key_name(key)}.arrow")


def tracks_uri(run: str, well: tuple[str, str]) -> str:
    """Which object is which cell, in one well."""
    return store.join(run, FOLDER, "tracks", f"{key_name(well)}.arrow")


def background_uri(run: str, group: tuple[str, str, int, str]) -> str:
    """The background of a channel of a well at one time, an .npy file."""
    return store.join(run, FOLDER, "background", f"{key_name(group)}.npy")


def tryall_uri(run: str, key: SiteKey) -> str:
    return store.join(run, "tryall", quote(key.experiment, safe=" "), f"{key.name}.png")
