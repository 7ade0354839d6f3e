"""Tiles in chunked storage: written once, whole; read in parts, many times.

One array holds all tiles of a run: `(row, channel, [z,] y, x)`, tiles smaller than the
largest at the low corner. Each tile has chunks of its own, so writers never meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Num

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import store

# About a quarter of a megavoxel: a strip of overlap reads little beside it, and the file
# count stays moderate.
CHUNK = {2: (512, 512), 3: (16, 128, 128)}


class TileStore:
    """The converted tiles of one run."""

    def __init__(self, array: ts.TensorStore) -> None:
        self._array = array

    @classmethod
    def create(cls, uri: str, shape: tuple[int, ...], dtype: str) -> TileStore:
        """The store for `shape` = (tiles, channels, [z,] y, x); opens it if it is there."""
        spec = _spec(uri, shape, dtype)
        return cls(ts.open(spec, open=True, create=True, context=store.context()).result())

    @classmethod
    def open(cls, uri: str) -> TileStore:
        spec = {"driver": "zarr3", "kvstore": store.kvstore_spec(uri)}
        return cls(ts.open(spec, context=store.context()).result())

    def write(
        self,
        row: int,
        channel: int,
        pixels: Num[np.ndarray, "..."],
        start: tuple[int, ...] | None = None,
    ) -> int:
        """Stores one channel of one tile, or the part of it that begins at `start`, which must
        be whole chunks; returns its bytes once they are committed."""
        window = Box.of_shape(pixels.shape, start)
        self._array[row, channel][window.slices].write(pixels).result()
        return int(pixels.nbytes)

    def read(self, row: int, channel: int, box: Box) -> Num[np.ndarray, "..."]:
        """The voxels of a box of one channel of one tile."""
        return np.asarray(self._array[row, channel][box.slices].read().result())


def _spec(uri: str, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    spatial = shape[2:]
    chunk = [min(c, n) for c, n in zip(CHUNK[len(spatial)], spatial, strict=True)]
    lz4 = {"cname": "lz4", "clevel": 1, "shuffle": "shuffle"}
    return {
        "driver": "zarr3",
        "kvstore": store.kvstore_spec(uri),
        "metadata": {
            "shape": list(shape),
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, *chunk]}},
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "blosc", "configuration": lz4},
            ],
        },
    }
