"""Tables of a database as columns, for looking at and for export."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from warpbeam.transforms.storage.database.connect import engine
from warpbeam.transforms.storage.database.schema import METADATA


def read_table(url: str, name: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of their keys."""
    table = METADATA.tables[name]
    order = list(table.primary_key.columns)
    with engine(url).connect() as connection:
        found = connection.execute(sa.select(table).order_by(*order))
        return [dict(row) for row in found.mappings()]
