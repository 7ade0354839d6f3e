"""The coarse levels that no single fuse shard holds: each shard from the level below.

A shard carries the levels that can be made of it alone, so a stage makes a group of levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from warpbeam.transforms.keys import ShardKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.ledger import Ledger, Record


def list_shards(uri: str, level: int, below: Ledger) -> Iterator[Unit]:
    """A unit per shard of a level; none where there is no such level, where the fuse stage or the
    one before makes it already, or where all below failed, so that there is no volume.

    The payload fingerprints the level below, so that a shard that was fused anew is
    carried up.
    """
    spec = volume.stored_spec(uri)
    if spec is None or level not in spec.group_starts[1:]:
        return
    source = below.fingerprint()
    for index in volume.Volume(spec).level(level).shard_grid.indices():
        yield ShardKey(level, index), source


class BuildShard:
    """Work of the stages `pyramid_<level>`: one whole shard of a level, and its group."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __call__(self, key: ShardKey, payload: Any) -> Record:
        return {"bytes_written": volume.open_volume(self._uri).build_shard(key.level, key.block)}
