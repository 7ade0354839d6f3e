"""What an output volume is: its levels, their shapes, chunks and shards.

A volume has five axes, t c z y x, with length 1 where one is absent. `chunk` is what a
reader fetches, `shard` is what a writer writes in one go: one object of a sharded format,
a union of whole chunks otherwise.

The pyramid: level k is level k-1 reduced by `factors[k-1]`, anchored at voxel 0, cut
blocks at the far edge averaged over what there is, so its shape is `ceil(n / factor)`.
Levels are written in groups. The first of a group has the full `shard`; those that follow
are computed by its writer from that shard alone, and their shard is the full one divided by
the factors, as long as that leaves whole chunks. The first group is made from the tiles, each
other one from the last level of the group below.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ngff import METRES

AXES = ("t", "c", "z", "y", "x")
NGFF_OF_FORMAT = {"zarr3": "0.5", "zarr2": "0.4", "n5": None, "precomputed": None}
FORMATS = tuple(NGFF_OF_FORMAT)
METHODS = ("mean", "mode")
# What Neuroglancer can show; float64, int64 and float16 volumes open nowhere in a browser.
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")


@dataclass(frozen=True)
class LevelSpec:
    """One resolution level; shapes in tczyx, `factor` (z, y, x) relative to level 0."""

    index: int
    path: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    factor: tuple[int, ...]

    @property
    def shards(self) -> int:
        """How many there are."""
        return math.prod(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))


@dataclass(frozen=True)
class VolumeSpec:
    """Everything that decides the bytes of an empty volume.

    Args:
        uri: where it is; a path, `file://`, `gs://`, `s3://` or `memory://`.
        shape: tczyx, in voxels of level 0.
        dtype: one of `DTYPES`.
        chunk: tczyx, in voxels; the same at every level.
        shard: tczyx, a multiple of `chunk`.
        format: one of `FORMATS`.
        ngff: "0.5" (zarr3), "0.4" (zarr2) or None (N5, precomputed); by default what fits.
        voxel: (z, y, x) size of a level-0 voxel in `unit`; without one only their ratios mean
            something.
        unit: a long unit name of OME-NGFF such as "micrometer", or None.
        origin: (z, y, x) world position of the centre of voxel 0, in level-0 voxels.
        factors: per level above 0, (z, y, x) relative to the level below.
        channels: one name per channel; empty = numbered.
        compression: level of zstd (Zarr) or gzip (N5).
        method: how a level is reduced: "mean" for images, "mode" for labels.
        fill: the value of what was never written.
        labels_of: address of the image that these are labels of, relative to this volume; None
            for an image.

    Raises:
        InputError: a choice that the format cannot store.
        ValueError: shapes that contradict one another.
    """

    uri: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    format: str = "zarr3"
    ngff: str | None = None
    voxel: tuple[float, ...] = (1.0, 1.0, 1.0)
    unit: str | None = None
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    factors: tuple[tuple[int, ...], ...] = ()
    channels: tuple[str, ...] = ()
    compression: int = 1
    method: str = "mean"
    fill: float = 0
    labels_of: str | None = None

    def __post_init__(self) -> None:
        if self.ngff is None:
            object.__setattr__(self, "ngff", NGFF_OF_FORMAT.get(self.format))
        _check_choices(self)
        _check_shapes(self)

    @property
    def channel_names(self) -> tuple[str, ...]:
        return self.channels or tuple(f"channel {i}" for i in range(self.shape[1]))

    @cached_property
    def group_starts(self) -> tuple[int, ...]:
        """The first level of each group, beginning with level 0."""
        starts, block = [0], self.shard[2:]
        for k, factor in enumerate(self.factors, 1):
            if any(b % (f * c) for b, f, c in zip(block, factor, self.chunk[2:], strict=True)):
                starts.append(k)
                block = self.shard[2:]
            else:
                block = tuple(map(operator.floordiv, block, factor))
        return tuple(starts)

    def group(self, k: int) -> range:
        """Level `k` and the levels that the writer of its shards makes from them alone."""
        ends = (*self.group_starts[1:], len(self.factors) + 1)
        return range(k, next(end for end in ends if end > k))

    @cached_property
    def levels(self) -> tuple[LevelSpec, ...]:
        """Every level, fine to coarse."""
        total, shape, shard = (1, 1, 1), self.shape, self.shard
        prefix = "" if self.format in ("zarr3", "zarr2") else "s"
        levels = []
        for k, factor in enumerate(((1, 1, 1), *self.factors)):
            total = tuple(map(operator.mul, total, factor))
            shape = (
                *shape[:2],
                *(math.ceil(n / f) for n, f in zip(shape[2:], factor, strict=True)),
            )
            if k in self.group_starts:
                shard = self.shard
            else:
                shard = (*shard[:2], *map(operator.floordiv, shard[2:], factor))
            levels.append(LevelSpec(k, f"{prefix}{k}", shape, self.chunk, shard, total))
        return tuple(levels)

    def to_json(self) -> dict[str, Any]:
        """All but the address, so that a volume may be moved."""
        return {k: v for k, v in asdict(self).items() if k != "uri"}

    @classmethod
    def from_json(cls, uri: str, value: dict[str, Any]) -> VolumeSpec:
        known = {f.name for f in fields(cls)}
        return cls(uri, **{k: _as_tuples(v) for k, v in value.items() if k in known})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def choose_levels(
    shape: Sequence[int], chunk: Sequence[int], voxel: Sequence[float]
) -> tuple[tuple[int, ...], ...]:
    """Halvings that first make voxels isotropic and end when a plane fits in one chunk.

    Each level halves the finest axis and those within a factor sqrt(2) of it, which is where
    halving an axis brings voxels nearer to a cube. An axis of one voxel is left alone.

    Args:
        shape: tczyx of level 0.
        chunk: tczyx.
        voxel: (z, y, x), any unit.

    Returns:
        Per level above 0, (z, y, x) factors relative to the level below.
    """
    size, pitch = list(shape[2:]), list(voxel)
    levels = []
    while size[1] > chunk[3] or size[2] > chunk[4]:
        finest = min(p for p, n in zip(pitch, size, strict=True) if n > 1)
        factor = tuple(
            2 if n > 1 and p < math.sqrt(2) * finest else 1
            for p, n in zip(pitch, size, strict=True)
        )
        size = [math.ceil(n / f) for n, f in zip(size, factor, strict=True)]
        pitch = [p * f for p, f in zip(pitch, factor, strict=True)]
        levels.append(factor)
    return tuple(levels)


def _check_choices(spec: VolumeSpec) -> None:
    fits = NGFF_OF_FORMAT.get(spec.format)
    alone = spec.format != "precomputed" or (spec.shape[0] == 1 and spec.chunk[1] == spec.shape[1])
    zero = spec.fill == 0 or spec.format in ("zarr3", "zarr2")
    checks = (
        ("format", spec.format in FORMATS, " | ".join(FORMATS), spec.format),
        ("ngff", spec.ngff == fits, f"{fits} for format {spec.format}", spec.ngff),
        ("dtype", spec.dtype in DTYPES, ", ".join(DTYPES), spec.dtype),
        ("method", spec.method in METHODS, " | ".join(METHODS), spec.method),
        ("unit", spec.unit is None or spec.unit in METRES, "a long name: micrometer", spec.unit),
        ("fill", zero, f"0 for format {spec.format}", spec.fill),
        (
            "shape",
            alone,
            "one time point, and all channels in one chunk, for format precomputed",
            f"shape {spec.shape}, chunk {spec.chunk}",
        ),
    )
    for name, good, expected, got in checks:
        if not good:
            raise InputError(
                f"the output volume cannot have this {name}",
                where=f"{name} of {spec.uri}",
                expected=expected,
                got=str(got),
                fix="choose one of the expected values, or another format",
            )


def _check_shapes(spec: VolumeSpec) -> None:
    for name in ("shape", "chunk", "shard"):
        value = getattr(spec, name)
        if len(value) != len(AXES) or min(value) < 1:
            raise ValueError(f"{name} needs five positive numbers (t, c, z, y, x), got {value}")
    if any(s % c for s, c in zip(spec.shard, spec.chunk, strict=True)):
        raise ValueError(f"shard {spec.shard} is not a multiple of chunk {spec.chunk}")
    for triple in (spec.voxel, spec.origin, *spec.factors):
        if len(triple) != 3:
            raise ValueError(f"voxel, origin and factors have (z, y, x), got {triple}")
    if not all(math.isfinite(v) and v > 0 for v in spec.voxel):
        raise ValueError(f"voxel sizes are finite and positive, got {spec.voxel}")
    if any(min(f) < 1 for f in spec.factors) or any(max(f) < 2 for f in spec.factors):
        raise ValueError(f"each level is reduced along some axis by 2 or more, got {spec.factors}")
    if spec.channels and len(spec.channels) != spec.shape[1]:
        raise ValueError(f"{spec.shape[1]} channels, but {len(spec.channels)} names")
