"""Arrays of numbers at nodes, between stages: flows and meshes, float32, NaN = not known.

Each writer owns whole chunks. Arrays are small beside the images, and are read without a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import store

Values = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class FieldArray:
    """One array, open for reading and writing."""

    array: ts.TensorStore

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def read(self, box: Box | None = None) -> Values:
        """The values of a box; of all nodes by default."""
        part = self.array if box is None else self.array[box.slices]
        return np.asarray(part.read(order="C").result())

    def write(self, box: Box, values: Values) -> int:
        """Stores whole chunks (cut at the end of the array) and waits until they are stored.

        Returns:
            Bytes written, before compression.

        Raises:
            ValueError: the box cuts a chunk, or the values do not fill it.
        """
        chunk = [c or n for c, n in zip(_write_chunk(self.array), self.shape, strict=True)]
        rows = zip(box.start, box.stop, chunk, self.shape, strict=True)
        if any(a % c or (b % c and b != n) or not a < b <= n for a, b, c, n in rows):
            raise ValueError(f"{box} is no union of chunks {chunk} of an array {self.shape}")
        if values.shape != box.shape:
            raise ValueError(f"values {values.shape} do not fill a box of {box.shape}")
        whole = np.ascontiguousarray(values, np.float32)
        self.array[box.slices].write(whole).result()
        return int(whole.nbytes)


def create(
    uri: str, shape: Sequence[int], chunk: Sequence[int], names: Sequence[str] | None = None
) -> FieldArray:
    """An array of NaN; opened where it is there already.

    Args:
        uri: where it is.
        shape: its size.
        chunk: what one writer owns; cut where the array is smaller.
        names: of the axes.

    Raises:
        ValueError: another array is there.
    """
    block = [min(c, n) for c, n in zip(chunk, shape, strict=True)]
    metadata: dict[str, Any] = {
        "shape": list(shape),
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": block}},
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 1}},
        ],
        "fill_value": "NaN",
    }
    if names is not None:
        metadata["dimension_names"] = list(names)
    spec = {"driver": "zarr3", "kvstore": store.kvstore_spec(uri), "metadata": metadata}
    array = ts.open(spec, open=True, create=True, context=store.write_context()).result()
    return FieldArray(array)


def load(uri: str) -> FieldArray:
    """The array that is there.

    Raises:
        ValueError: there is none.
    """
    spec = {"driver": "zarr3", "kvstore": store.kvstore_spec(uri)}
    return FieldArray(ts.open(spec, open=True, context=store.write_context()).result())


def _write_chunk(array: ts.TensorStore) -> tuple[int | None, ...]:
    return array.chunk_layout.write_chunk.shape or (None,) * array.rank
