"""A plate: its sites, and the images of each.

A site is what is segmented once: a tile, or a montage in which several tiles of a well were
put together. It has an image per channel, all of one shape.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from warpbeam.transforms.storage.ledger import digest
from warpbeam.transforms.storage.tiles.natural import natural


class SiteKey(NamedTuple):
    """One site at one time; `tile` is the first of its tiles."""

    experiment: str
    well: str
    timepoint: int
    tile: int

    @property
    def name(self) -> str:
        """For files: `A1_T0_1`."""
        return f"{self.well}_T{self.timepoint}_{self.tile}"


class ChannelImage(NamedTuple):
    """The image of one channel of a site: the fields of an `ImageRef`."""

    channel: str
    file: str
    series: int
    number: int
    time: int
    plane: int | None


@dataclass(frozen=True)
class Site:
    """One site.

    Attributes:
        key: its identity.
        tiles: numbers of the tiles that it shows; several for a montage.
        images: one per channel, in the order of the plate's channels.
        shape: yx.
        version: changes when one of its files is written again.
        hours: since the experiment began, where the plate table says.
    """

    key: SiteKey
    tiles: tuple[int, ...]
    images: tuple[ChannelImage, ...]
    shape: tuple[int, ...]
    version: str
    hours: float | None = None

    @property
    def montage(self) -> bool:
        return len(self.tiles) > 1

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(image.channel for image in self.images)

    def to_json(self) -> list[Any]:
        return [self.key, self.tiles, self.images, self.shape, self.version, self.hours]

    @classmethod
    def from_json(cls, value: list[Any]) -> Site:
        key, tiles, images, shape, version, hours = value
        return cls(
            SiteKey(*key), tuple(tiles), tuple(ChannelImage(*i) for i in images), tuple(shape),
            version, hours,
        )  # fmt: skip


@dataclass(frozen=True)
class Plate:
    """Sites in the order of their names (numbers count as numbers).

    Attributes:
        sites: all that were chosen.
        channels: every channel of any site.
        dtype: of all images.
        voxel_um: yx; None where the files do not say.
    """

    sites: tuple[Site, ...]
    channels: tuple[str, ...]
    dtype: str
    voxel_um: tuple[float, ...] | None

    def __len__(self) -> int:
        return len(self.sites)

    def extends(self, before: Sequence[Site]) -> bool:
        """Whether these sites are all there, as they were but for the versions of their files, and
        what was added fits beside them: the same channels, later times, images no larger."""
        mine = {site.key: replace(site, version="") for site in self.sites}
        if any(mine.get(site.key) != replace(site, version="") for site in before):
            return False
        times = {site.key.timepoint for site in before}
        return (
            set(self.channels) == {name for site in before for name in site.channels}
            and all(t in times or t > max(times) for t in {key.timepoint for key in mine})
            and _sizes(self.sites, before) == _sizes(before, before)
        )

    def fingerprint(self, *, with_versions: bool = True) -> str:
        """Changes with whatever the result depends on: names, files, shapes; with versions the
        files' contents too, by size and time of change."""
        rows = [site.to_json() for site in self.sites]
        if not with_versions:
            rows = [[*row[:4], row[5]] for row in rows]
        return digest(json.loads(json.dumps(rows)))


def _sizes(
    sites: Sequence[Site], among: Sequence[Site]
) -> dict[tuple[str, str, int], tuple[int, ...]]:
    """How large the images of each tile among those get over time."""
    found: dict[tuple[str, str, int], tuple[int, ...]] = {
        (s.key.experiment, s.key.well, s.key.tile): (0, 0) for s in among
    }
    for site in sites:
        place = (site.key.experiment, site.key.well, site.key.tile)
        if place in found:
            found[place] = tuple(map(max, found[place], site.shape))
    return found


def site_order(key: SiteKey) -> tuple[object, ...]:
    """Sort key: experiment, well (A2 before A10, B after A), time, tile."""
    return natural(key.experiment), natural(key.well), key.timepoint, key.tile
