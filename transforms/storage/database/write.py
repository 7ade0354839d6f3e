"""Rows of one site, in one transaction: all of them are stored, or none.

What a site had before goes first, so that a rerun replaces its own rows and no others.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.database.connect import (
    first_line,
    is_read_only,
    shown,
    transaction,
)

Columns = Mapping[str, Any]

_MASKS_AT_ONCE = 500  # in one statement


@dataclass(frozen=True)
class SiteRows:
    """What is known of one site.

    Attributes:
        experiment, well, timepoint: what it shows.
        tiles: numbers of its tiles; the objects belong to the first, of the segmented channel.
        segmented: the channel in which the objects were found.
        channels: every channel that was measured.
        tile: per channel further columns of `tiledata`.
        cells: columns of `celldata`, an entry per object.
        intensities: per channel the columns of `intensitycelldata`, in the same order.
        puncta: per channel the columns of `punctadata` (`cell` is the object's number from 1).
        puncta_intensities: per channel of the spots, per channel measured, the grey values.
    """

    experiment: str
    well: str
    timepoint: int
    tiles: tuple[int, ...]
    segmented: str
    channels: tuple[str, ...]
    tile: Mapping[str, Columns]
    cells: Columns
    intensities: Mapping[str, Columns]
    puncta: Mapping[str, Columns] = field(default_factory=dict)
    puncta_intensities: Mapping[str, Mapping[str, Columns]] = field(default_factory=dict)


def replace_site(url: str, site: SiteRows) -> int:
    """Stores a site in place of what was stored of it before; returns the number of rows.

    Raises:
        ConnectionError: the database is busy or away; the same call may succeed later.
        PermissionError: it may only be read.
    """
    try:
        return _replace(url, site)
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        cause = first_line(error)
        kind = PermissionError if is_read_only(cause) else ConnectionError
        raise kind(f"{shown(url)}: {cause}") from None


def remove_objects(url: str, masks: Sequence[str]) -> None:
    """Deletes the objects that these masks show, and the addresses of the masks: rows that another
    run has taken over since name a mask of its own, and stay.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database is away, or may only be read.
    """
    columns = (schema.TILE.c.maskpath, schema.TILE.c.alignedmontagemaskpath)
    nothing = dict.fromkeys(("maskpath", "trackedmaskpath", "alignedmontagemaskpath"))
    with transaction(url) as connection:
        for first in range(0, len(masks), _MASKS_AT_ONCE):
            some = masks[first : first + _MASKS_AT_ONCE]
            named = sa.or_(*(column.in_(some) for column in columns))
            rows = sa.select(schema.TILE.c.id).where(named)
            connection.execute(schema.CELL.delete().where(schema.CELL.c.tiledata_id.in_(rows)))
            connection.execute(schema.TILE.update().where(named), nothing)


def _replace(url: str, site: SiteRows) -> int:
    with transaction(url) as connection:
        experiment = _found(connection, schema.EXPERIMENT, {"experiment": site.experiment})
        own = {"experimentdata_id": experiment}
        well = _found(connection, schema.WELL, {**own, "well": site.well})
        own["welldata_id"] = well
        channels = {
            name: _found(connection, schema.CHANNEL, {**own, "channel": name})
            for name in site.channels
        }
        tiles = {
            (name, number): _tile(connection, {**own, "channeldata_id": key}, site, name, number)
            for name, key in channels.items()
            for number in site.tiles
        }
        segmented = tiles[site.segmented, site.tiles[0]]
        for number in site.tiles:
            key = tiles[site.segmented, number]
            connection.execute(_FORGET_OBJECTS, {"tile_key": key})
        return _objects(connection, {**own, "tiledata_id": segmented}, site, channels)


def _found(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> str:
    """The key of the row, which is made where there is none; another may make it meanwhile."""
    key = _existing(connection, table, row)
    if key is None:
        new = {"id": schema.key_of(table.name, *row.values()), **row}
        connection.execute(_insert_quietly(connection, table), new)
        key = _existing(connection, table, row)
    return str(key)


def _existing(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> str | None:
    found = connection.execute(_key_where(table, tuple(row)), row).scalar()
    return None if found is None else str(found).replace("-", "")  # as `schema.key_of` writes it


@functools.cache
def _key_where(table: sa.Table, names: tuple[str, ...]) -> sa.Select[Any]:
    """The key of the row with these columns. Statements are kept: SQLAlchemy takes longer to
    make one than SQLite to answer it (measured)."""
    return sa.select(table.c.id).where(*(table.c[name] == sa.bindparam(name) for name in names))


_SET_TILE = schema.TILE.update().where(schema.TILE.c.id == sa.bindparam("tile_key"))
_FORGET_OBJECTS = schema.CELL.delete().where(schema.CELL.c.tiledata_id == sa.bindparam("tile_key"))


def _insert_quietly(connection: sa.Connection, table: sa.Table) -> Any:
    """An insertion that leaves a row alone that is there already."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        return insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite

    return insert_sqlite(table).on_conflict_do_nothing()


def _tile(
    connection: sa.Connection, own: dict[str, Any], site: SiteRows, channel: str, number: int
) -> str:
    """The row of one tile in one channel, with its columns set."""
    key = _found(connection, schema.TILE, {**own, "timepoint": site.timepoint, "tile": number})
    connection.execute(_SET_TILE, {"tile_key": key, **site.tile[channel]})
    return key


def _objects(
    connection: sa.Connection, own: dict[str, Any], site: SiteRows, channels: dict[str, str]
) -> int:
    tile = own["tiledata_id"]
    count = len(site.cells["randomcellid"])
    keys = schema.numbered_keys(tile, "cell", count)
    total = _insert(connection, schema.CELL, count, {"id": keys, **own, **site.cells})
    total += _greys(connection, schema.INTENSITY, tile, {"celldata_id": keys}, site.intensities,
                    channels)  # fmt: skip
    for name, spots in site.puncta.items():
        size = len(spots["cell"])
        ids = schema.numbered_keys(tile, f"puncta {name}", size)
        owner = [keys[cell - 1] for cell in spots["cell"]]
        shape = {k: spots[k] for k in ("area", "centroid_y", "centroid_x")}
        row = {"id": ids, "tiledata_id": tile, "celldata_id": owner,
               "channeldata_id": channels[name], **shape}  # fmt: skip
        total += _insert(connection, schema.PUNCTA, size, row)
        greys = site.puncta_intensities[name]
        total += _greys(connection, schema.PUNCTA_INTENSITY, f"{tile} {name}",
                        {"punctadata_id": ids}, greys, channels)  # fmt: skip
    return total


def _greys(
    connection: sa.Connection,
    table: sa.Table,
    owner: str,
    of: dict[str, list[str]],
    greys: Mapping[str, Columns],
    channels: dict[str, str],
) -> int:
    """Grey values of the same things in several channels, with one statement."""
    ((link, keys),) = of.items()
    if not keys or not greys:
        return 0
    columns: dict[str, list[Any]] = {name: [] for name in ("id", link, "channeldata_id")}
    for channel, values in greys.items():
        columns["id"] += schema.numbered_keys(owner, f"{table.name} {channel}", len(keys))
        columns[link] += keys
        columns["channeldata_id"] += [channels[channel]] * len(keys)
        for name, column in values.items():
            columns.setdefault(name, []).extend(_values(column, len(keys)))
    return _insert(connection, table, len(columns["id"]), columns)


def _insert(connection: sa.Connection, table: sa.Table, count: int, columns: Columns) -> int:
    """Many rows at once: COPY in PostgreSQL, one prepared statement in SQLite."""
    if not count:
        return 0
    names = [column.name for column in table.columns if column.name in columns]
    values = [_values(columns[name], count) for name in names]
    if connection.dialect.name == "postgresql":
        _copy(connection, table.name, names, values)
    else:
        marks = ", ".join("?" * len(names))
        text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
        connection.exec_driver_sql(text, list(zip(*values, strict=True)))
    return count


def _values(column: Any, count: int) -> Sequence[Any]:
    """Plain Python values; NaN, which no database column needs, becomes NULL."""
    if isinstance(column, np.ndarray):
        values = column.tolist()
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            return [v if np.isfinite(v) else None for v in values]
        return values
    return column if isinstance(column, list) else [column] * count


def _copy(
    connection: sa.Connection, table: str, names: list[str], columns: list[Sequence[Any]]
) -> None:
    texts = (["\\N" if v is None else str(v) for v in column] for column in columns)
    lines = map("\t".join, zip(*texts, strict=True))
    stream = io.BytesIO(("\n".join(lines) + "\n").encode())
    cursor: Any = connection.connection.cursor()
    cursor.execute(f"COPY {table} ({', '.join(names)}) FROM STDIN", stream=stream)
