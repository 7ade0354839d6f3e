"""Opening a database: what can be wrong is said before any work starts."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.errors import InputError

_BUSY_S = 120
_ONE_WRITER = threading.Lock()


def database_url(url: str) -> str:
    """The address with the driver that is installed: pg8000 for PostgreSQL.

    Raises:
        InputError: no address of SQLite or PostgreSQL.
    """
    try:
        made = sa.engine.make_url(url)
    except sa.exc.ArgumentError as error:
        raise _unusable(str(error)) from None
    name = made.get_backend_name()
    if name == "postgresql":
        return made.set(drivername="postgresql+pg8000").render_as_string(hide_password=False)
    if name == "sqlite":
        return url
    raise _unusable(f"a {name} address")


@contextlib.contextmanager
def transaction(url: str) -> Iterator[sa.Connection]:
    """All that is done with the connection, or nothing.

    SQLite has one writer at a time, and whoever finds it busy sleeps for a while, often for longer
    than it is: the threads of one process wait for one another here.
    """
    made = engine(url)
    alone = _ONE_WRITER if made.dialect.name == "sqlite" else contextlib.nullcontext()
    with alone, made.begin() as connection:
        yield connection


@functools.lru_cache(maxsize=8)
def engine(url: str) -> sa.Engine:
    """The connections of this process to a database; opened when they are first needed."""
    address = database_url(url)
    if address.startswith("sqlite"):
        made = sa.create_engine(address, connect_args={"timeout": _BUSY_S}, hide_parameters=True)
        sa.event.listen(made, "connect", _set_up_sqlite)
        sa.event.listen(made, "begin", _begin_sqlite)
        return made
    made = sa.create_engine(address, pool_pre_ping=True, hide_parameters=True)
    sa.event.listen(made, "connect", _without_delay)
    return made


def _without_delay(connection: Any, _: Any) -> None:
    """Small packets are sent at once: else each COPY waits 40 ms for an acknowledgement.

    pg8000 has no option for it, and keeps its socket to itself.
    """
    opened = getattr(connection, "_usock", None)
    if isinstance(opened, socket.socket) and opened.family != socket.AF_UNIX:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    # Taking the write lock at once: two readers that both want to write later would deadlock.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def open_database(url: str) -> str:
    """Creates the tables where there are none; returns the mark of this database.

    It is opened anew: a file may have been deleted and made again since it was used last.

    Raises:
        InputError: it cannot be reached or written, or its tables are of another version.
    """
    engine.cache_clear()
    try:
        with transaction(url) as connection:
            found = set(sa.inspect(connection).get_table_names())
            if schema.ABOUT.name in found:
                return _checked(url, connection)
            ours = found & set(schema.METADATA.tables)
            if ours:
                raise _version(url, f"tables without a version ({', '.join(sorted(ours))})")
            schema.METADATA.create_all(connection)
            mark = uuid.uuid4().hex
            row = {"mark": mark, "version": schema.VERSION}
            connection.execute(schema.ABOUT.insert(), row)
            return mark
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _unreachable(url, error) from None


def _checked(url: str, connection: sa.Connection) -> str:
    row = connection.execute(sa.select(schema.ABOUT)).first()
    if row is None or row.version != schema.VERSION:
        raise _version(url, f"version {row.version if row else 'none'}")
    # A write that changes nothing: a database that may only be read is found now, not later.
    connection.execute(schema.ABOUT.update().values(version=schema.VERSION))
    return str(row.mark)


def first_line(error: Exception) -> str:
    """What the driver said, without the statement."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def is_read_only(cause: str) -> bool:
    """Whether a driver's message says that the database cannot be written."""
    return "readonly" in cause or "read-only" in cause


def shown(url: str) -> str:
    """The address without its password."""
    return sa.engine.make_url(url).render_as_string(hide_password=True)


def _unreachable(url: str, error: Exception) -> InputError:
    cause = first_line(error)
    read_only = is_read_only(cause)
    return InputError(
        "the database may only be read" if read_only else "the database cannot be reached",
        where=shown(url),
        expected="a database that can be written",
        got=cause,
        fix="check the address (database.url), the server, and the permission to write",
    )


def _version(url: str, got: str) -> InputError:
    return InputError(
        "the database has tables of another version",
        where=shown(url),
        expected=f"version {schema.VERSION}, or an empty database",
        got=got,
        fix="use another database (database.url), or empty this one",
    )


def _unusable(got: str) -> InputError:
    return InputError(
        "the address of a database makes no sense",
        where="database.url",
        expected="sqlite:///file.sqlite or postgresql://user:password@host/name",
        got=got,
        fix="correct the address",
    )
