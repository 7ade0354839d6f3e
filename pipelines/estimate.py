"""How much work and memory the shared stages take; the numbers behind a plan.

The rates were measured on one core of a 2.4 GHz server with `make bench`; they are for
orders of magnitude.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.montage.pair import strip_boxes
from warpbeam.pipelines.config import TilesConfig
from warpbeam.pipelines.plan import StagePlan
from warpbeam.transforms.contrast import MOST_TILES as CONTRAST_TILES
from warpbeam.transforms.flatfield import MOST_TILES as FLATFIELD_TILES
from warpbeam.transforms.link import LinkSettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.volume_spec import VolumeSpec

# Interpreter, Beam, TensorStore, OpenCV and SciPy, loaded.
BASE_MEMORY = 320_000_000
_CONVERT_BYTES_PER_S = 200e6
_FUSE_VOXELS_PER_S = {"multiband": 10e6}
_FUSE_VOXELS_PER_S_OTHERWISE = 25e6
_TIFF_VOXELS_PER_S = 20e6
_PYRAMID_BYTES_PER_S = 150e6
_LINK_VOXELS_PER_S = 3e6
_FLOW_NODES_PER_S = 5e3
_MESH_NODES_PER_S = 8e3
_MESH_BYTES_PER_NODE = 3000
# Of images of a pixel whose contrast is evened out.
EVENED_BYTES = 40


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


def links(
    tiles: TileList, units: Iterable[Unit], settings: LinkSettings
) -> tuple[StagePlan, StagePlan, StagePlan]:
    """Comparing neighbours, and the solve."""
    count, units_of_work, voxels, largest = 0, 0, 0, 0
    for _, (fixed, beside, _) in units:
        units_of_work += 1
        for moving in beside:
            boxes = strip_boxes(
                fixed.shape, moving.source.shape, offset=moving.offset, search=settings.search
            )
            size = sum(box.size for box in boxes)
            count, voxels, largest = count + 1, voxels + size, max(largest, size)
    read, fewer = voxels * itemsize(tiles), settings.reduction**2
    memory = 80 * largest // fewer
    nulls = min(max(count, 64), 256)
    mean = voxels / max(count, 1)
    return (
        StagePlan("link", units_of_work, read, 0, memory, voxels / fewer / _LINK_VOXELS_PER_S),
        StagePlan(
            "null", math.ceil(nulls / 16), round(nulls * mean) * itemsize(tiles), 0, memory,
            nulls * mean / fewer / _LINK_VOXELS_PER_S,
        ),
        StagePlan("solve", 1, 0, 0, 4000 * (len(tiles) + count), (len(tiles) + count) / 2e4),
    )  # fmt: skip


def elastic(
    tiles: TileList, units: Iterable[Unit], stride: tuple[int, ...]
) -> tuple[StagePlan, StagePlan, StagePlan]:
    """Comparing overlaps point by point, the meshes, and their index."""
    count, voxels, largest, spacing = 0, 0, 0, math.prod(stride)
    for _, (fixed, beside, _) in units:
        for moving in beside:
            boxes = strip_boxes(
                fixed.shape, moving.source.shape, offset=moving.offset, search=(0,) * len(stride)
            )
            count, voxels, largest = count + 1, voxels + boxes[0].size, max(largest, boxes[0].size)
    nodes = sum(math.prod(-(-n // s) + 1 for n, s in zip(t.shape, stride, strict=True))
                for t in tiles.tiles)  # fmt: skip
    most = max(Counter((t.time, t.section) for t in tiles.tiles).values()) / len(tiles)
    memory = 100_000_000 + round(_MESH_BYTES_PER_NODE * nodes * most)
    read = 2 * voxels * itemsize(tiles)
    return (
        # the images with their halves, and a dozen of float32 products under the windows
        StagePlan("flow", count, read, 0, 80 * largest, voxels / spacing / _FLOW_NODES_PER_S),
        StagePlan("mesh", len(tiles.montages()), 0, 8 * nodes, memory, nodes / _MESH_NODES_PER_S),
        StagePlan("maps", 1, 0, 0, 4000 * len(tiles), len(tiles) / 2e4),
    )


def greys(tiles: TileList, config: TilesConfig, *, flatfield: bool) -> list[StagePlan]:
    """Estimating the flat field, the gains, and the range of grey values, where they are wanted."""
    total, largest = tile_bytes(tiles), max(math.prod(t.shape) for t in tiles.tiles)
    channels, found = len(tiles.channels), []
    if flatfield:
        read = round(total * min(1.0, FLATFIELD_TILES / len(tiles)))
        memory = 8 * largest + 40_000_000
        found.append(StagePlan("flatfield", channels, read, 0, memory, read / _CONVERT_BYTES_PER_S))
    if config.shading.gain != "off":
        # Overlaps are some tenth of a tile on each side, and each is read for two tiles.
        read = round(0.4 * total)
        found.append(
            StagePlan("levels", len(tiles), read, 0, 8 * largest, read / _CONVERT_BYTES_PER_S)
        )
        found.append(StagePlan("gain", 1, 0, 0, 4000 * len(tiles), 4e-5 * len(tiles)))
    if config.shading.contrast != "none":
        read = round(total * min(1.0, CONTRAST_TILES / len(tiles)))
        found.append(
            StagePlan("contrast", channels, read, 0, 8 * largest, read / _CONVERT_BYTES_PER_S)
        )
    return found


def fuse(tiles: TileList, spec: VolumeSpec, config: TilesConfig) -> StagePlan:
    """Rendering the level-0 shards and the levels inside them."""
    size = itemsize(tiles)
    shard = math.prod(spec.shard)
    covered = sum(
        affine.bounding_box(tile.world_matrix(), Box.of_shape(tile.shape)).size
        for tile in tiles.tiles
    ) * len(tiles.channels)
    # The shard and its levels, the encoded copy, the tile count, and the windows of the
    # tiles: all of them twice over where everything overlaps.
    evened = 0 if config.shading.contrast == "none" else EVENED_BYTES
    memory = round(shard * (size * (1.4 + 1.4) + 1 + 2.5 * size + evened))
    written = math.prod(spec.shape) * size
    rate = _FUSE_VOXELS_PER_S.get(config.blend.mode, _FUSE_VOXELS_PER_S_OTHERWISE)
    return StagePlan(
        "fuse", spec.levels[0].shards, covered * size, written * 4 // 3, memory, covered / rate
    )


def pyramid(spec: VolumeSpec, size: int) -> StagePlan:
    """The levels that no single fuse shard holds."""
    starts = [spec.levels[k] for k in spec.group_starts[1:]]
    units = sum(level.shards for level in starts)
    above = spec.levels[starts[0].index :] if starts else ()
    read = sum(math.prod(spec.levels[level.index - 1].shape) * size for level in starts)
    written = sum(math.prod(level.shape) * size for level in above)
    memory = 4 * math.prod(spec.shard) * size if above else 0
    return StagePlan("pyramid", units, read, written, memory, read / _PYRAMID_BYTES_PER_S)


def drawing(
    tiles: TileList, spec: VolumeSpec, *, direct: bool, voxels_per_s: float
) -> list[StagePlan]:
    """Drawing images through maps that are there; `direct`: they can be read in parts."""
    voxels, size = math.prod(spec.shape), itemsize(tiles)
    units = spec.levels[0].shards
    memory = round(math.prod(spec.shard) * size * 6 + 60e6)
    return [
        convert(tiles, needed=not direct),
        StagePlan(
            "render", units, voxels * size, voxels * size * 4 // 3, memory, voxels / voxels_per_s
        ),
        pyramid(spec, size),
    ]


def tiff(spec: VolumeSpec, size: int) -> StagePlan:
    """The volume once more as one file: one worker, which holds planes of a chunk's depth."""
    voxels = math.prod(spec.shape)
    slab = spec.chunk[2] * math.prod(spec.shape[3:]) * size
    return StagePlan("tiff", 1, voxels * size, voxels * size, slab, voxels / _TIFF_VOXELS_PER_S)
