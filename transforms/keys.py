"""The keys that travel through Beam in place of pixels.

A key is a tuple of plain ints and strings, so that it hashes, sorts, pickles and
encodes the same way on every worker. `KeyCoder` makes that a contract.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import apache_beam as beam


class MontageKey(NamedTuple):
    """One montage: the tiles that are placed together."""

    time: int
    section: int


class TileKey(NamedTuple):
    """One field of view of one section at one time, with all of its channels."""

    time: int
    section: int
    tile: str

    @property
    def montage(self) -> MontageKey:
        return MontageKey(self.time, self.section)


class ShardKey(NamedTuple):
    """One whole output shard: the index of its level and of its block, in tczyx order."""

    level: int
    block: tuple[int, ...]


class NodesKey(NamedTuple):
    """One block of nodes of one section; the index of the block, in yx order."""

    section: int
    block: tuple[int, ...]


class RunKey(NamedTuple):
    """Consecutive sections that one worker goes through, from `first` to `last`."""

    first: int
    last: int


class RegionKey(NamedTuple):
    """A part of a volume that is segmented: the level and zyx index of a region; level 0 is of
    blocks."""

    level: int
    region: tuple[int, ...]


class KeyCoder(beam.coders.Coder):
    """Keys of one kind as compact JSON: deterministic, and readable in a dump."""

    def __init__(self, kind: type[tuple[Any, ...]]) -> None:
        self._kind = kind

    @classmethod
    def from_type_hint(cls, typehint: type[tuple[Any, ...]], _registry: object) -> KeyCoder:
        return cls(typehint)

    def encode(self, value: tuple[Any, ...]) -> bytes:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()

    def decode(self, encoded: bytes) -> tuple[Any, ...]:
        fields = map(_as_tuple, json.loads(encoded))
        return self._kind(*fields)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[tuple[Any, ...]]:
        return self._kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyCoder) and self._kind is other._kind

    def __hash__(self) -> int:
        return hash((KeyCoder, self._kind))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


for _kind in (MontageKey, TileKey, ShardKey, NodesKey, RunKey, RegionKey):
    beam.coders.registry.register_coder(_kind, KeyCoder)
