"""Output volumes: create, open, write whole shards, read boxes, build the pyramid.

Everything here is in tczyx with five axes, whatever the format stores. A write covers whole
shards (cut short at the volume's edge), so no two writers share an object, and a retry
writes the same bytes. Chunks that hold nothing but the fill value are not stored.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
import tensorstore as ts

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.segment.mode import reduced_mode
from warpbeam.transforms.storage import n5, ngff, precomputed, store, zarr
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.store import (
    context,
    exists,
    join,
    kvstore_spec,
    read_json,
    write_context,
    write_json,
)
from warpbeam.transforms.storage.volume_spec import LevelSpec, VolumeSpec
from warpbeam.transforms.storage.volume_spec import choose_levels as choose_levels

_MODULES: dict[str, ModuleType] = {
    "zarr3": zarr,
    "zarr2": zarr,
    "n5": n5,
    "precomputed": precomputed,
}


@dataclass(frozen=True)
class Level:
    """One resolution level of a volume, open for reading and writing."""

    spec: LevelSpec
    store: ts.TensorStore
    sink: ts.TensorStore

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.store.dtype.numpy_dtype

    @property
    def shard_grid(self) -> BlockGrid:
        return BlockGrid(self.spec.shape, self.spec.shard)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of `box`.

        Raises:
            ValueError: the box leaves the level.
        """
        return self._read(self.store, box)

    def read_once(self, box: Box) -> np.ndarray:
        """`read` for voxels that nobody here will want again: they are not kept in the cache."""
        return self._read(self.sink, box)

    def _read(self, store: ts.TensorStore, box: Box) -> np.ndarray:
        if not Box.of_shape(self.shape).contains(box):
            raise ValueError(f"{box} is not inside a level of shape {self.shape}")
        return store[box.slices].read(order="C").result()

    def write_shards(self, box: Box, array: np.ndarray) -> int:
        """Writes whole shards and waits until they are stored.

        Args:
            box: a union of whole shards, cut at the level's edge.
            array: of the box's shape and the level's dtype; unchanged until this returns.

        Returns:
            The bytes of the array, before compression.

        Raises:
            ValueError: the box cuts a shard, or the array does not fit the box.
        """
        self._start(box, array).result()
        return array.nbytes

    def _start(self, box: Box, array: np.ndarray) -> ts.WriteFutures:
        for start, stop, shard, size in zip(
            box.start, box.stop, self.spec.shard, self.shape, strict=True
        ):
            if start % shard or (stop % shard and stop != size) or not 0 <= start < stop <= size:
                raise ValueError(
                    f"{box} is not a union of whole shards {self.spec.shard} of a level of "
                    f"shape {self.shape}"
                )
        if array.shape != box.shape or array.dtype != self.dtype:
            raise ValueError(
                f"an array {array.shape} {array.dtype} does not fill a box of shape {box.shape} "
                f"with {self.dtype}"
            )
        return self.sink[box.slices].write(
            np.ascontiguousarray(array),
            can_reference_source_data_indefinitely=self._can_reference,
        )

    @property
    def _can_reference(self) -> bool:
        """Whether TensorStore may write from the caller's array, and save a shard of memory.

        The sink has no cache that could refer to the array once it is committed. But
        TensorStore 0.1.86 takes a chunk for empty, and drops it, when it compares a piece of
        an array with four or more axes of stride to the fill value; up to three are right.
        """
        return sum(n > 1 for n in self.spec.chunk) <= 3


@dataclass(frozen=True)
class Volume:
    """A created volume; small and picklable, arrays open on first use in each process."""

    spec: VolumeSpec

    @property
    def levels(self) -> int:
        return len(self.spec.levels)

    def level(self, k: int) -> Level:
        return _open_level(self.spec, k)

    def write_with_levels(self, box: Box, array: np.ndarray) -> int:
        """Writes level-0 shards and, from memory, the other levels of their group.

        Each level is reduced from the stored values of the one below. All are written at
        once and waited for together.

        Returns:
            The bytes of all arrays written, before compression.

        Raises:
            ValueError: as `Level.write_shards`.
        """
        return self._write_group(0, box, array)

    def _write_group(self, k: int, box: Box, array: np.ndarray) -> int:
        first, *others = self.spec.group(k)
        writes = [self.level(first)._start(box, array)]
        total = array.nbytes
        for level in others:
            factor = (1, 1, *self.spec.factors[level - 1])
            array, box = downsample(array, factor, self.spec.method), _coarsen(box, factor)
            writes.append(self.level(level)._start(box, array))
            total += array.nbytes
        for write in writes:
            write.result()
        return total

    def build_shard(self, k: int, index: Sequence[int]) -> int:
        """Makes one shard of level k >= 1 from the stored level below, and writes it.

        The level below is read in pieces of about one shard, which bounds the memory. What
        follows in the group of level k is written too.

        Returns:
            The bytes written, before compression.
        """
        source, target = self.level(k - 1), self.level(k)
        box = target.shard_grid.box(index)
        factor = (1, 1, *self.spec.factors[k - 1])
        piece = tuple(max(1, n // f) for n, f in zip(target.spec.shard, factor, strict=True))
        pieces = BlockGrid(box.shape, piece)
        array = np.empty(box.shape, target.dtype)
        for part in map(pieces.box, pieces.indices()):
            fine = _refine(part.shift(box.start), factor) & Box.of_shape(source.shape)
            array[part.slices] = downsample(source.read_once(fine), factor, self.spec.method)
        return self._write_group(k, box, array)


def downsample(array: np.ndarray, factor: Sequence[int], method: str) -> np.ndarray:
    """Reduces every block of `factor` voxels to its mean or mode, anchored at index 0.

    Blocks cut by the edge use what there is. Means of integers round half to even.
    """
    if method == "mode" and not any(n % f for n, f in zip(array.shape, factor, strict=True)):
        return reduced_mode(array, factor)  # several times faster
    how = cast(Literal["mean", "mode"], method)
    return ts.downsample(ts.array(array), list(factor), how).read(order="C").result()


def _coarsen(box: Box, factor: Sequence[int]) -> Box:
    start = tuple(map(operator.floordiv, box.start, factor))
    return Box(start, tuple(-(-n // f) for n, f in zip(box.stop, factor, strict=True)))


def _refine(box: Box, factor: Sequence[int]) -> Box:
    return Box(
        tuple(map(operator.mul, box.start, factor)), tuple(map(operator.mul, box.stop, factor))
    )


def create(spec: VolumeSpec) -> Volume:
    """Creates the arrays and metadata of an empty volume; the same spec again changes nothing.

    The group's metadata is written last, so a volume that can be opened is complete.

    Raises:
        InputError: something else is there already.
    """
    stored = stored_spec(spec.uri)
    if stored is None:
        if _has_group(spec.uri):
            raise _occupied(spec.uri, "data that another program wrote")
        files = _MODULES[spec.format].group_files(spec)
        if spec.format != "precomputed":
            _create_arrays(spec)
        for key, value in files.items():
            write_json(join(spec.uri, key), value)
    elif stored != spec:
        old, new = stored.to_json(), spec.to_json()
        changed = [f"{k} {old[k]} instead of {new[k]}" for k in new if old[k] != new[k]]
        raise _occupied(spec.uri, "a volume with " + ", ".join(changed))
    return Volume(spec)


def lengthen(spec: VolumeSpec) -> Volume:
    """Makes an OME-Zarr volume longer in time, and creates it where there is none; what is there
    stays.

    The group's metadata is written last; a stop before it is mended by the same call.

    Raises:
        InputError: something else is there already, or a volume that differs in more than that.
    """
    stored = stored_spec(spec.uri)
    if stored is not None and stored.shape[0] < spec.shape[0]:
        if replace(stored, shape=spec.shape) != spec or stored.shape[1:] != spec.shape[1:]:
            return create(spec)  # which says what differs
        for level in spec.levels:
            address = {k: v for k, v in _address(spec, level).items() if k in ("driver", "kvstore")}
            array = ts.open(address, open=True, context=context()).result()
            array.resize(
                exclusive_max=list(level.shape), resize_metadata_only=True, expand_only=True
            ).result()
        for key, value in _MODULES[spec.format].group_files(spec).items():
            write_json(join(spec.uri, key), value)
        forget()
    return create(spec)


def _create_arrays(spec: VolumeSpec) -> None:
    opening = [
        ts.open(_address(spec, level), create=True, open=True, context=context())
        for level in spec.levels
    ]
    try:
        for array in opening:
            array.result()
    except ValueError as error:
        if not str(error).startswith("FAILED_PRECONDITION"):
            raise
        raise _occupied(spec.uri, f"arrays left by another run ({error})"[:300]) from None


def _occupied(uri: str, got: str) -> InputError:
    return InputError(
        "the output exists",
        where=uri,
        expected="an empty place, or the same volume",
        got=got,
        fix="delete it, or choose another output",
    )


def open_volume(uri: str) -> Volume:
    """Opens a volume that `create` made.

    Raises:
        InputError: there is none.
    """
    spec = stored_spec(uri)
    if spec is None:
        raise InputError(
            "there is no volume to open",
            where=uri,
            expected="a volume written by warpbeam",
            got="data that another program wrote" if exists(uri) else "nothing",
            fix="check the path",
        )
    return Volume(spec)


def forget() -> None:
    """Lets go of all volumes that are open in this process, as files that are deleted ask for."""
    _open_level.cache_clear()
    store.forget()


def stored_spec(uri: str) -> VolumeSpec | None:
    """The spec that `create` stored at `uri`; None if there is none."""
    group = ngff.read_group(uri)
    if group is not None:
        holders = [group[1]]
    else:
        holders = [read_json(join(uri, name)) or {} for name in ("attributes.json", "info")]
    for holder in holders:
        if "warpbeam" in holder:
            return VolumeSpec.from_json(uri, holder["warpbeam"])
    return None


def _has_group(uri: str) -> bool:
    names = ("zarr.json", ".zgroup", ".zarray", "attributes.json", "info")
    return any(read_json(join(uri, name)) is not None for name in names)


def _address(spec: VolumeSpec, level: LevelSpec) -> dict[str, Any]:
    root = spec.uri if spec.format == "precomputed" else join(spec.uri, level.path)
    return _MODULES[spec.format].array_spec(spec, level) | {"kvstore": kvstore_spec(root)}


@functools.lru_cache(maxsize=256)
def _open_level(spec: VolumeSpec, k: int) -> Level:
    level = spec.levels[k]
    address, as_tczyx = _address(spec, level), _MODULES[spec.format].as_tczyx
    opening = [ts.open(address, open=True, context=c) for c in (context(), write_context())]
    store, sink = (as_tczyx(array.result()) for array in opening)
    return Level(level, store, sink)
