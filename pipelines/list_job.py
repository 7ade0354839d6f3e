"""Jobs on a list of tiles, sections or volumes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import numpy as np

from warpbeam.pipelines.config import TilesConfig
from warpbeam.pipelines.job import Config, Job
from warpbeam.transforms.storage import images
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileList, TileOptions, read_tiles
from warpbeam.transforms.tiles import TileSource, save_sources, sources_of

OnTiles = TypeVar("OnTiles", bound=TilesConfig)


class ListJob(Job[Config]):
    """A job on a list of tiles, sections or volumes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tiles: TileList = self.read()
        self.sources: list[TileSource] = sources_of(
            self.tiles, direct=_readable_in_parts(self.tiles)
        )

    @abstractmethod
    def read(self) -> TileList:
        """The tiles, the sections, or the volumes that the job works on."""

    def fingerprint(self, *, with_versions: bool = True) -> str:
        return self.tiles.fingerprint(with_versions=with_versions)

    def save_inputs(self) -> None:
        save_sources(self.run_folder, self.sources)

    def check_channel(self, channel: int, name: str) -> None:
        """Raises InputError where the setting `name` chooses a channel that is not there."""
        channels = self.tiles.channels
        if channel >= len(channels):
            raise InputError(
                "there is no such channel",
                where=name,
                expected=f"0 to {len(channels) - 1} ({', '.join(channels)})",
                got=str(channel),
                fix="choose one of these",
            )

    def check_grey(self, value: float, name: str) -> None:
        """Raises InputError where the setting `name` is a grey value that no pixel can have."""
        dtype = np.dtype(self.tiles.dtype)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if value != round(value) or not limits.min <= value <= limits.max:
                raise InputError(
                    "a grey value does not fit the images",
                    where=name,
                    expected=f"a whole number from {limits.min} to {limits.max}, as {dtype} holds",
                    got=f"{value:g}",
                    fix="choose one of these",
                )

    def check_ids(self, interpolation: str, name: str) -> None:
        """Raises InputError where labels would be blended: integers that no camera gives."""
        dtype = np.dtype(self.tiles.dtype)
        if dtype.kind in "iu" and dtype.itemsize >= 4 and interpolation != "nearest":
            raise InputError(
                "labels cannot be blended",
                where=name,
                expected=f"nearest, for {dtype}",
                got=interpolation,
                fix=f"set {name}=nearest; give grey values as float32",
            )


class TileJob(ListJob[OnTiles]):
    """A job on tiles that become one volume."""

    def read(self) -> TileList:
        options = TileOptions(**self.config.input.model_dump())
        return read_tiles(self.config.tiles, options=options)

    def check(self) -> None:
        """Raises InputError where the tiles and the settings do not go together."""
        if self.tiles.ndim == 3 and self.config.blend.interpolation == "lanczos":
            raise InputError(
                "this interpolation is for 2-D tiles only",
                where="blend.interpolation",
                expected="nearest, linear or cubic for 3-D tiles",
                got="lanczos",
                fix="choose cubic",
            )
        if self.tiles.ndim == 3 and self.config.shading.contrast != "none":
            raise InputError(
                "contrast is evened out in 2-D tiles only",
                where="shading.contrast",
                expected="none for 3-D tiles",
                got=self.config.shading.contrast,
                fix="leave it out",
            )


def _readable_in_parts(tiles: TileList) -> bool:
    return all(images.probe(image).random_access for image in tiles.tiles[0].images)
