"""Rows of a plate from the tables of a database, see `transforms.storage.database.schema`.

A row of `tiledata` names one image of one channel: `filename`, or `newimagemontage` where the
tile lies in a montage; `zstep` is its plane. Only four tables are read, and only columns that other
programs on the same schema have too.
"""

from __future__ import annotations

from typing import Any

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import exists, join
from warpbeam.transforms.storage.plate.selection import well_place
from warpbeam.transforms.storage.plate.table import PlateRow

_SCHEMES = ("sqlite:", "postgresql:", "postgresql+")


def is_database(source: str) -> bool:
    return source.startswith(_SCHEMES)


def stored_rows(url: str, folder: str) -> list[PlateRow]:
    """A row per image that a database names; relative files are below `folder`.

    Raises:
        InputError: the database cannot be reached, has other tables, or names no image.
    """
    import sqlalchemy as sa

    from warpbeam.transforms.storage.database.connect import first_line, shown

    try:
        found = _tiles(url)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise InputError(
            "a database cannot be read as a plate",
            where=shown(url),
            expected="the tables experimentdata, welldata, channeldata and tiledata",
            got=first_line(error),
            fix="check the address, and that the database holds a plate",
        ) from None
    rows = [_row(cells, shown(url), folder) for cells in found if _file(cells)]
    if not rows:
        raise InputError(
            "a database names no image",
            where=f"{shown(url)}, tiledata",
            expected="rows with a filename, or a newimagemontage",
            got=f"{len(found)} rows without",
            fix="fill one of these columns",
        )
    return rows


def _tiles(url: str) -> list[Any]:
    import sqlalchemy as sa

    from warpbeam.transforms.storage.database.connect import database_url
    from warpbeam.transforms.storage.database.schema import (
        CHANNEL,
        EXPERIMENT,
        NAMED_TILES,
        TILE,
        WELL,
    )

    chosen = sa.select(
        EXPERIMENT.c.experiment, WELL.c.well, CHANNEL.c.channel, TILE.c.timepoint, TILE.c.tile,
        TILE.c.hours, TILE.c.zstep, TILE.c.filename, TILE.c.newimagemontage,
    )  # fmt: skip
    order = (EXPERIMENT.c.experiment, WELL.c.well, TILE.c.timepoint, TILE.c.tile, CHANNEL.c.channel)
    # An engine of its own: it takes no lock, and a file that is not there is not made.
    made = sa.create_engine(_read_only(database_url(url)), poolclass=sa.NullPool)
    with made.connect() as connection:
        return list(connection.execute(chosen.select_from(NAMED_TILES).order_by(*order)).mappings())


def _read_only(url: str) -> str:
    path = url.removeprefix("sqlite:///")
    if path == url:
        return url
    if not exists(path):
        raise FileNotFoundError(f"no file {path}")
    return f"sqlite:///file:{path}?mode=ro&uri=true"


def _file(cells: Any) -> str | None:
    return cells["filename"] or cells["newimagemontage"]


def _row(cells: Any, where: str, folder: str) -> PlateRow:
    at = f"{where}, tile {cells['tile']} of well {cells['well']}"
    well_place(cells["well"], at)
    return PlateRow(
        where=at,
        experiment=cells["experiment"],
        well=cells["well"],
        timepoint=cells["timepoint"],
        channel=cells["channel"],
        tile=cells["tile"],
        file=join(folder, _file(cells) or ""),
        hours=cells["hours"],
        index=(0, 0, 0, cells["zstep"]),
    )
