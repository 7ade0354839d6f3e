"""Tables of what was measured, as Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from warpbeam.transforms.storage import store


def write(uri: str, rows: Sequence[dict[str, Any]]) -> None:
    """Stores rows; the columns are those of the first row. No rows make an empty table."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    store.write_bytes(uri, buffer.getvalue())


def read(uri: str) -> list[dict[str, Any]]:
    """The rows stored at `uri`; none where there is no such table."""
    from pyarrow import parquet

    raw = store.read_bytes(uri)
    return [] if raw is None else parquet.read_table(io.BytesIO(raw)).to_pylist()
