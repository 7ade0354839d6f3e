"""Tables of what was measured, as Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
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
    """Stores columns of one length, such as arrays, as an Arrow file; returns the bytes.

    Small tables that only the run itself reads: an Arrow file is read and written in a tenth of
    the time of a Parquet file, and is larger.
    """
    import pyarrow

    table = pyarrow.table(dict(columns))
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    raw = sink.getvalue().to_pybytes()
    store.write_bytes(uri, raw)
    return len(raw)


def write_groups(
    uri: str, nothing: Mapping[str, Any], groups: Iterable[Mapping[str, Any]]
) -> tuple[int, int]:
    """Stores columns that come in parts as Parquet, a row group each; returns rows and bytes.

    `nothing` are the same columns without a row: they say the types, also where no part comes.
    """
    import pyarrow
    from pyarrow import parquet

    buffer, rows = io.BytesIO(), 0
    with parquet.ParquetWriter(buffer, pyarrow.table(dict(nothing)).schema) as writer:
        for group in groups:
            table = pyarrow.table(dict(group))
            rows += table.num_rows
            writer.write_table(table)
    store.write_bytes(uri, buffer.getvalue())
    return rows, buffer.tell()


def arrow_table(uri: str) -> Any:
    """The `pyarrow.Table` that `write_columns` stored.

    Raises:
        FileNotFoundError: there is none.
    """
    import pyarrow

    raw = store.read_bytes(uri)
    if raw is None:
        raise FileNotFoundError(f"no table {uri}")
    return pyarrow.ipc.open_file(pyarrow.py_buffer(raw)).read_all()


def read_columns(uri: str) -> dict[str, Any]:
    """The columns that `write_columns` stored, as arrays.

    Raises:
        FileNotFoundError: there are none.
    """
    table = arrow_table(uri)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def read(uri: str) -> list[dict[str, Any]]:
    """The rows stored at `uri`; none where there is no such table."""
    from pyarrow import parquet

    raw = store.read_bytes(uri)
    return [] if raw is None else parquet.read_table(io.BytesIO(raw)).to_pylist()
