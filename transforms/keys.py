"""The keys that travel through Beam in place of pixels.

A key is a tuple of plain ints and strings, so that it hashes, sorts, pickles and
encodes the same way on every worker. `KeyCoder` makes that a contract.
"""

from __future__ import annotations

import json
from typing import NamedTuple

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


class KeyCoder(beam.coders.Coder):
    """Keys as compact JSON: deterministic, readable in a dump, the same on every platform."""

    def encode(self, value: tuple[object, ...]) -> bytes:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()

    def decode(self, encoded: bytes) -> tuple[object, ...]:
        return _as_tuple(json.loads(encoded))

    def is_deterministic(self) -> bool:
        return True


def _as_tuple(value: object) -> object:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
