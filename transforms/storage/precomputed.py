"""Volumes in Neuroglancer's precomputed format: one `info` file and raw-encoded chunks.

A shard of this format is a run of chunk numbers, and chunks are numbered along a compressed
Morton curve; so a shard is a box only if its chunk counts are those of an aligned piece of that
curve. Levels whose shard is such a box are sharded, with one writer per shard; the others are
stored chunk by chunk, and `shard` is the unit of writing alone.

The format knows whole-voxel offsets only, of the corner of a level. They are written where
the origin is exact at every level, and left at zero otherwise; the `warpbeam` member keeps
the origin in any case.

Format: https://github.com/google/neuroglancer, src/datasource/precomputed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorstore as ts

from warpbeam.transforms.storage.ngff import METRES
from warpbeam.transforms.storage.volume_spec import LevelSpec, VolumeSpec

# Chunks per entry of a minishard index: 2**9 keeps an index near 10 kB, one read.
_CHUNKS_PER_MINISHARD_BITS = 9


def array_spec(_spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    """The TensorStore driver of one level, without its address; `info` has the metadata."""
    return {"driver": "neuroglancer_precomputed", "scale_index": level.index}


def group_files(spec: VolumeSpec) -> dict[str, Any]:
    """The `info` file, which describes all levels."""
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if spec.method == "mode" else "image",
        "data_type": spec.dtype,
        "num_channels": spec.shape[1],
        "scales": [_scale(spec, level) for level in spec.levels],
        "warpbeam": spec.to_json(),
    }
    return {"info": info}


def as_tczyx(store: ts.TensorStore) -> ts.TensorStore:
    """From x, y, z, channel with an offset to tczyx from zero."""
    return store.T[ts.d[:].translate_to[0]][ts.newaxis]


def _scale(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    nm = METRES[spec.unit] * 1e9 if spec.unit else 1.0
    rows = list(zip(spec.voxel, spec.origin, level.factor, strict=True))
    scale: dict[str, Any] = {
        "key": level.path,
        "size": _xyz(level.shape[2:]),
        "resolution": _xyz([s * f * nm for s, _, f in rows]),
        "voxel_offset": _xyz([int(o) // f if _is_exact(spec) else 0 for _, o, f in rows]),
        "chunk_sizes": [_xyz(level.chunk[2:])],
        "encoding": "raw",
    }
    grid = [math.ceil(n / c) for n, c in zip(level.shape[2:], level.chunk[2:], strict=True)]
    per_shard = [s // c for s, c in zip(level.shard[2:], level.chunk[2:], strict=True)]
    bits = shard_bits(_xyz(grid), _xyz(per_shard))
    return scale | ({"sharding": _sharding(bits, grid)} if bits else {})


def _is_exact(spec: VolumeSpec) -> bool:
    coarsest = spec.levels[-1].factor
    return all(o % f == 0 for o, f in zip(spec.origin, coarsest, strict=True))


def _xyz(zyx: Sequence[Any]) -> list[Any]:
    return list(reversed(zyx))


def _sharding(bits: int, grid: Sequence[int]) -> dict[str, Any]:
    preshift = min(bits, _CHUNKS_PER_MINISHARD_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": preshift,
        "minishard_bits": bits - preshift,
        "shard_bits": max(0, len(_morton_axes(grid)) - bits),
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }


def _morton_axes(grid: Sequence[int]) -> list[int]:
    """Which axis each bit of the compressed Morton code comes from, lowest bit first."""
    needed = [(n - 1).bit_length() for n in grid]
    return [a for bit in range(max(needed)) for a in range(len(grid)) if bit < needed[a]]


def shard_bits(grid: Sequence[int], per_shard: Sequence[int]) -> int | None:
    """How many low bits of the chunk number run over exactly one shard.

    Args:
        grid: (x, y, z) chunks of the level.
        per_shard: (x, y, z) chunks of a shard.

    Returns:
        None when no run of the compressed Morton curve is that box.
    """
    wanted = [min(p, n) for p, n in zip(per_shard, grid, strict=True)]
    box = [1] * len(grid)
    axes = _morton_axes(grid)
    for bits in range(len(axes) + 1):
        if [min(b, n) for b, n in zip(box, grid, strict=True)] == wanted:
            return bits
        if bits < len(axes):
            box[axes[bits]] *= 2
    return None
