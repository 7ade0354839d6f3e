"""Tables of what was measured, as Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from warpbeam.transforms.storage import store


def write(uri: str, rows: Sequence[dict[str, Any]]) -> None:
    """Stores rows; the columns are those of the first row. No rows make an empty table."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    store.write_bytes(uri, buffer.getvalue())


def write_columns(uri: str, columns: Mapping[str, Any]) -> int:
    """Stores columns of one length, such as arrays; returns the bytes."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(columns)), buffer)
    store.write_bytes(uri, buffer.getvalue())
    return buffer.tell()


def read_columns(uri: str) -> dict[str, Any]:
    """The columns stored at `uri` as arrays.

    Raises:
        FileNotFoundError: there is no such table.
    """
    from pyarrow import parquet

    raw = store.read_bytes(uri)
    if raw is None:
        raise FileNotFoundError(f"no table {uri}")
    table = parquet.read_table(io.BytesIO(raw))
    return {name: table.column(name).to_numpy() for name in table.column_names}


def read(uri: str) -> list[dict[str, Any]]:
    """The rows stored at `uri`; none where there is no such table."""
    from pyarrow import parquet

    raw = store.read_bytes(uri)
    return [] if raw is None else parquet.read_table(io.BytesIO(raw)).to_pylist()
