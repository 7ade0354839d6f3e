"""How much work and memory the shared stages take; the numbers behind a plan.

The rates were measured on one core of a 2.4 GHz server with `make bench`; they are for
orders of magnitude.
"""

from __future__ import annotations

import math

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines.config import JobConfig
from warpbeam.pipelines.plan import StagePlan
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.volume_spec import VolumeSpec

# Interpreter, Beam, TensorStore, OpenCV and SciPy, loaded.
BASE_MEMORY = 320_000_000
_CONVERT_BYTES_PER_S = 200e6
_FUSE_VOXELS_PER_S = {"multiband": 10e6}
_FUSE_VOXELS_PER_S_OTHERWISE = 25e6
_PYRAMID_BYTES_PER_S = 150e6


def itemsize(tiles: TileList) -> int:
    import numpy as np

    return np.dtype(tiles.dtype).itemsize


def tile_bytes(tiles: TileList) -> int:
    """Bytes of all tiles, all channels, uncompressed."""
    voxels = sum(math.prod(tile.shape) for tile in tiles.tiles)
    return voxels * len(tiles.channels) * itemsize(tiles)


def convert(tiles: TileList, *, needed: bool) -> StagePlan:
    """Copying the tiles into chunked storage; nothing where they can be read in parts."""
    if not needed:
        return StagePlan("convert", 0, 0, 0, 0, 0.0)
    total = tile_bytes(tiles)
    largest = max(math.prod(tile.shape) for tile in tiles.tiles) * itemsize(tiles)
    return StagePlan("convert", len(tiles), total, total, 3 * largest, total / _CONVERT_BYTES_PER_S)


def fuse(tiles: TileList, spec: VolumeSpec, config: JobConfig) -> StagePlan:
    """Rendering the level-0 shards and the levels inside them."""
    size = itemsize(tiles)
    shard = math.prod(spec.shard)
    covered = sum(
        affine.bounding_box(tile.world_matrix(), Box.of_shape(tile.shape)).size
        for tile in tiles.tiles
    ) * len(tiles.channels)
    units = math.prod(math.ceil(n / s) for n, s in zip(spec.shape, spec.shard, strict=True))
    # The shard and its levels, the encoded copy, the tile count, and the windows of the
    # tiles: all of them twice over where everything overlaps.
    memory = round(shard * (size * (1.4 + 1.4) + 1 + 2.5 * size))
    written = math.prod(spec.shape) * size
    rate = _FUSE_VOXELS_PER_S.get(config.blend.mode, _FUSE_VOXELS_PER_S_OTHERWISE)
    return StagePlan("fuse", units, covered * size, written * 4 // 3, memory, covered / rate)


def pyramid(spec: VolumeSpec, size: int) -> StagePlan:
    """The levels that no single fuse shard holds."""
    above = spec.levels[spec.in_shard_levels + 1 :]
    units = sum(
        math.prod(math.ceil(n / s) for n, s in zip(lv.shape, lv.shard, strict=True)) for lv in above
    )
    read = sum(math.prod(spec.levels[level.index - 1].shape) * size for level in above)
    written = sum(math.prod(level.shape) * size for level in above)
    memory = 4 * math.prod(spec.shard) * size if above else 0
    return StagePlan("pyramid", units, read, written, memory, read / _PYRAMID_BYTES_PER_S)
