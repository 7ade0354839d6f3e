"""A tile and a list of tiles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.images.ref import ImageRef
from warpbeam.transforms.storage.images.source import version
from warpbeam.transforms.storage.images.stack import plane_files
from warpbeam.transforms.storage.tiles.natural import natural

__all__ = ["ImageRef", "Tile", "TileList"]
THREADS = 16  # looking at files waits for the disk or the network

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tile:
    """One field of view at one time, with all of its channels.

    Args:
        time: of the recording, an index.
        section: of the specimen, an index.
        tile: name, unique within its time and section.
        images: one per channel.
        shape: yx or zyx.
        dtype: that `images.read` returns.
        position: of voxel 0 in world pixels, same rank as `shape`.
        matrix: source voxel to world voxel, d x (d + 1), or (d + 1) x (d + 1) for a
            perspective; None where only the position is known.
        mask: image whose voxels that are not 0 are valid.
    """

    time: int
    section: int
    tile: str
    images: tuple[ImageRef, ...]
    shape: tuple[int, ...]
    dtype: str
    position: tuple[float, ...]
    matrix: Matrix | None = None
    mask: ImageRef | None = None

    @property
    def key(self) -> tuple[int, int, str]:
        """Time, section and tile, as a tile's key has them."""
        return (self.time, self.section, self.tile)

    @property
    def box(self) -> Box:
        """All voxels, in the tile's own frame."""
        return Box.of_shape(self.shape)

    def world_matrix(self) -> Float[np.ndarray, "d1 d1"]:
        """The homogeneous map from the tile's voxels to the world's: `matrix`, or the position."""
        if self.matrix is None:
            return affine.translation(self.position)
        return affine.homogeneous(self.matrix)


@dataclass(frozen=True)
class TileList:
    """Tiles by section, time and name (numbers in names count as numbers).

    Args:
        tiles: all with the same channels, dtype and rank.
        channels: one name per image of a tile.
        voxel_um: size of a voxel, yx or zyx; None where nobody says.
    """

    tiles: tuple[Tile, ...]
    channels: tuple[str, ...]
    voxel_um: tuple[float, ...] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)

    @property
    def ndim(self) -> int:
        return len(self.tiles[0].shape)

    @property
    def dtype(self) -> str:
        return self.tiles[0].dtype

    def montages(self) -> dict[tuple[int, int], tuple[Tile, ...]]:
        """The tiles that are placed together, by time and section."""
        groups: dict[tuple[int, int], list[Tile]] = {}
        for tile in self.tiles:
            groups.setdefault((tile.time, tile.section), []).append(tile)
        return {key: tuple(group) for key, group in groups.items()}

    def fingerprint(self, *, with_versions: bool = True) -> str:
        """SHA-256 over what the result depends on: files (their names below the folder that
        all share, sizes and times of change), shapes, positions, matrices, channels, voxel
        size. The order of rows in the list that was read and the place of the folder are
        no part of it.

        Args:
            with_versions: sizes and times of change take part; without them a file that was
                copied again makes no other list.
        """
        files = self._files()
        marks = self._marks() if with_versions else {name: [] for name in files}
        root = _common_folder(files)
        lines = sorted(json.dumps(_facts(tile, root, marks)) for tile in self.tiles)
        return _sha256([lines, self.channels, self.voxel_um])

    def versions(self) -> list[str]:
        """Per tile a mark that changes when one of its files is written again."""
        marks = self._marks()
        return [_sha256([marks[r.file] for r in _refs(tile)])[:16] for tile in self.tiles]

    def _files(self) -> list[str]:
        return sorted({ref.file for tile in self.tiles for ref in _refs(tile)})

    def _marks(self) -> dict[str, list[object]]:
        files = self._files()
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(files, pool.map(_version, files), strict=True))


def sort_key(tile: Tile) -> tuple[object, ...]:
    return (tile.section, tile.time, natural(tile.tile))


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _refs(tile: Tile) -> tuple[ImageRef, ...]:
    return (*tile.images, *((tile.mask,) if tile.mask is not None else ()))


def _facts(tile: Tile, root: str, marks: dict[str, list[object]]) -> list[object]:
    refs = [
        [r.file[len(root) :], r.series, r.channel, r.time, r.plane, marks[r.file]]
        for r in _refs(tile)
    ]
    return [*tile.key, refs, tile.shape, tile.dtype, tile.position, tile.matrix]


def _version(file: str) -> list[object]:
    """Sizes and times of change; for a chunked array those of its folder."""
    if "|" in file:
        return []
    return [version(name) for name in (plane_files(file) if "*" in file else [file])]


def _common_folder(files: list[str]) -> str:
    folders = [name.split("/")[:-1] for name in files]
    shared = [parts[0] for parts in zip(*folders, strict=False) if len(set(parts)) == 1]
    depth = next((k for k, p in enumerate(zip(*folders, strict=False)) if len(set(p)) > 1), None)
    return "".join(f"{part}/" for part in shared[:depth])
