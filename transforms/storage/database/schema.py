"""The tables, with the names that the Finkbeiner lab's programs read.

    experimentdata -> welldata -> channeldata
                               -> tiledata -> celldata -> intensitycelldata
                                                       -> punctadata -> intensitypunctadata

Keys are UUIDs made from what a row is (experiment, well, time, tile, cell), so that the same
row has the same key in every run. A row goes with the one that it belongs to.
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

VERSION = 1
METADATA = sa.MetaData()
_KEY = sa.Uuid(as_uuid=False)


def _table(name: str, owners: tuple[str, ...], *columns: Any) -> sa.Table:
    """A table whose rows belong to rows of others; each reference has an index."""
    links = [
        sa.Column(f"{owner}_id", _KEY,
                  sa.ForeignKey(f"{owner}.id", ondelete="CASCADE"), nullable=False, index=True)
        for owner in owners
    ]  # fmt: skip
    return sa.Table(name, METADATA, sa.Column("id", _KEY, primary_key=True), *links, *columns)


def _floats(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double) for name in names]


# What the database is: the version of these tables, and a mark that no other database has.
ABOUT = sa.Table(
    "warpbeam_database", METADATA,
    sa.Column("mark", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)  # fmt: skip

EXPERIMENT = _table("experimentdata", (), sa.Column("experiment", sa.Text, unique=True))
WELL = _table(
    "welldata", ("experimentdata",), sa.Column("well", sa.Text, nullable=False),
    sa.UniqueConstraint("experimentdata_id", "well"),
)  # fmt: skip
CHANNEL = _table(
    "channeldata", ("experimentdata", "welldata"), sa.Column("channel", sa.Text, nullable=False),
    sa.UniqueConstraint("welldata_id", "channel"),
)  # fmt: skip
TILE = _table(
    "tiledata", ("experimentdata", "welldata", "channeldata"),
    sa.Column("tile", sa.Integer, nullable=False),
    sa.Column("timepoint", sa.Integer, nullable=False),
    sa.Column("hours", sa.Double),
    sa.Column("zstep", sa.Integer),
    sa.Column("filename", sa.Text),
    sa.Column("maskpath", sa.Text),
    sa.Column("trackedmaskpath", sa.Text),
    sa.Column("newimagemontage", sa.Text),
    sa.Column("alignedmontagepath", sa.Text),
    sa.Column("alignedmontagemaskpath", sa.Text),
    sa.UniqueConstraint("channeldata_id", "timepoint", "tile"),
)  # fmt: skip
# Tiles beside the channel, well and experiment that they belong to.
NAMED_TILES = (
    TILE.join(CHANNEL, TILE.c.channeldata_id == CHANNEL.c.id)
    .join(WELL, TILE.c.welldata_id == WELL.c.id)
    .join(EXPERIMENT, TILE.c.experimentdata_id == EXPERIMENT.c.id)
)
CELL = _table(
    "celldata", ("experimentdata", "welldata", "tiledata"),
    sa.Column("cellid", sa.Integer),
    sa.Column("randomcellid", sa.Integer, nullable=False),
    sa.Column("randomcellid_montage", sa.Integer),
    sa.Column("area", sa.Integer),
    *(sa.Column(name, sa.Integer) for name in ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")),
    *_floats("centroid_y", "centroid_x", "centroid_weighted_y", "centroid_weighted_x", "extent",
             "solidity", "perimeter", "eccentricity", "axis_major_length", "axis_minor_length",
             "orientation"),
)  # fmt: skip
GREYS = ("intensity_max", "intensity_mean", "intensity_min", "intensity_std")
INTENSITY = _table("intensitycelldata", ("celldata", "channeldata"), *_floats(*GREYS))
PUNCTA = _table(
    "punctadata", ("tiledata", "celldata", "channeldata"), sa.Column("area", sa.Integer),
    *_floats("centroid_y", "centroid_x"),
)  # fmt: skip
PUNCTA_INTENSITY = _table("intensitypunctadata", ("punctadata", "channeldata"), *_floats(*GREYS))


def key_of(*parts: object) -> str:
    """The key of what these names say, 32 hexadecimal digits."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def numbered_keys(owner: str, kind: str, count: int) -> list[str]:
    """Keys of things numbered 0, 1, … that belong to one row."""
    prefix = key_of(owner, kind)[:24]
    return [f"{prefix}{k:08x}" for k in range(count)]
