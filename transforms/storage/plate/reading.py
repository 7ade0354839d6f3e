"""`read_plate`: rows -> chosen sites, after a look at the header of every file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageInfo, ImageRef
from warpbeam.transforms.storage.images.source import exists, is_folder, version
from warpbeam.transforms.storage.ledger import digest
from warpbeam.transforms.storage.plate.model import ChannelImage, Plate, Site, SiteKey, site_order
from warpbeam.transforms.storage.plate.selection import (
    Selection,
    chosen_channels,
    chosen_times,
    chosen_wells,
    well_place,
)
from warpbeam.transforms.storage.plate.stored import is_database, stored_rows
from warpbeam.transforms.storage.plate.table import (
    PlateRow,
    hcs_rows,
    is_hcs,
    pattern_rows,
    table_rows,
)
from warpbeam.transforms.storage.tiles.check import probe_all
from warpbeam.transforms.storage.tiles.natural import natural

_TABLES = (".csv", ".tsv", ".parquet", ".pq")


@dataclass(frozen=True)
class PlateOptions:
    """How a plate is read.

    Attributes:
        images: folder of the files that a table names; by default the table's own.
        pattern: name pattern of a folder of images.
    """

    images: str | None = None
    pattern: str | None = None


def read_plate(source: str, selection: Selection, options: PlateOptions | None = None) -> Plate:
    """The chosen sites of a plate.

    Args:
        source: a CSV or Parquet table, a database, a folder of images with a name pattern, or an
            OME-Zarr plate.
        selection: what is wanted of it.
        options: how it is read.

    Raises:
        InputError: anything wrong with the plate, its files or the selection.
    """
    rows = select(one_spelling(_rows(source, options or PlateOptions())), selection)
    refs = [ImageRef(row.file, *row.index) for row in rows]
    infos = probe_all(refs)
    _check_alike(rows, infos)
    sites = _sites(rows, infos)
    channels = sorted({row.channel for row in rows}, key=natural)
    voxel = infos[0].voxel_um
    return Plate(tuple(sites), tuple(channels), infos[0].dtype, voxel and voxel[-2:])


def _rows(source: str, options: PlateOptions) -> list[PlateRow]:
    if is_database(source):
        return stored_rows(source, options.images or "")
    if not exists(source):
        raise InputError(
            "a plate does not exist",
            where=source,
            expected="a plate table, a database, a folder of images, or an OME-Zarr plate",
            got="no such file or folder",
            fix="correct the path",
        )
    if not is_folder(source):
        return table_rows(source, options.images or os.path.dirname(source))
    if is_hcs(source):
        return list(hcs_rows(source))
    if options.pattern is None:
        raise InputError(
            "nothing says what the images of a folder show",
            where=source,
            expected=f"a plate table ({', '.join(_TABLES)}), or a name pattern",
            got="a folder without a pattern",
            fix="set input.pattern, for example '{well}_T{timepoint}_{tile}_{channel}.tif'",
        )
    return pattern_rows(source, options.pattern)


def one_spelling(rows: Sequence[PlateRow]) -> list[PlateRow]:
    """The rows with each well named as it is first: `A01` and `a1` are one."""
    names: dict[tuple[int, int], str] = {}
    return [
        replace(row, well=names.setdefault(well_place(row.well, row.where), row.well))
        for row in rows
    ]


def select(rows: Sequence[PlateRow], selection: Selection) -> list[PlateRow]:
    """The rows that are chosen; a montage with all of its tiles, where one of them is.

    Raises:
        InputError: something that is chosen is not there, or nothing is left.
    """
    wells = chosen_wells(selection.wells, selection.wells_toggle, {r.well for r in rows})
    times = chosen_times(
        selection.timepoints, selection.timepoints_toggle, {r.timepoint for r in rows}
    )
    channels = chosen_channels(
        selection.channels, selection.channels_toggle, sorted({r.channel for r in rows})
    )
    shown = _shown(rows)
    kept = [
        row
        for row in rows
        if row.well in wells
        and row.timepoint in times
        and row.channel in channels
        and (selection.tile is None or selection.tile in shown[_image(row)])
        and selection.experiment in (None, row.experiment)
    ]
    if not kept:
        raise InputError(
            "no image is left of the plate",
            where="select",
            expected=f"some of its {len(rows)} images",
            got=f"experiment {selection.experiment}, tile {selection.tile} and the other choices",
            fix="choose more",
        )
    return kept


def _image(row: PlateRow) -> tuple[object, ...]:
    """What two rows have in common that name one image."""
    return (row.experiment, row.well, row.timepoint, row.file, row.index)


def _shown(rows: Sequence[PlateRow]) -> dict[tuple[object, ...], set[int]]:
    """The tiles that each image shows: several where it is a montage."""
    shown: dict[tuple[object, ...], set[int]] = {}
    for row in rows:
        shown.setdefault(_image(row), set()).add(row.tile)
    return shown


def _check_alike(rows: Sequence[PlateRow], infos: Sequence[ImageInfo]) -> None:
    """All images have one dtype and two dimensions; tiles, which no montage shows, one shape."""
    montages = any(len(tiles) > 1 for tiles in _shown(rows).values())
    first = infos[0]
    for row, info in zip(rows, infos, strict=True):
        same = info.dtype == first.dtype and (montages or info.shape == first.shape)
        if len(info.shape) != 2:
            raise InputError(
                "an image of a plate has several planes",
                where=f"{row.file} ({row.where})",
                expected="a plane",
                got=_words(info),
                fix="say which one in the column file_plane, or segment it as a volume",
            )
        if not same:
            raise InputError(
                "an image differs from the others of its plate",
                where=f"{row.file} ({row.where})",
                expected=f"{_words(first)}, as in {rows[0].file}",
                got=_words(info),
                fix="take the image off the plate, or choose the wells and channels that fit",
            )


def _words(info: ImageInfo) -> str:
    return f"{' x '.join(map(str, info.shape))} {info.dtype}"


def _sites(rows: Sequence[PlateRow], infos: Sequence[ImageInfo]) -> list[Site]:
    """Rows by site. Rows of several tiles that name one file are one site: their montage."""
    shown = _shown(rows)
    groups: dict[SiteKey, list[tuple[PlateRow, ImageInfo]]] = {}
    for row, info in zip(rows, infos, strict=True):
        key = SiteKey(row.experiment, row.well, row.timepoint, min(shown[_image(row)]))
        groups.setdefault(key, []).append((row, info))
    marks = {row.file: version(row.file) for row in rows}
    return [_site(key, groups[key], marks) for key in sorted(groups, key=site_order)]


def _site(
    key: SiteKey, parts: list[tuple[PlateRow, ImageInfo]], marks: dict[str, tuple[int, str]]
) -> Site:
    images: dict[str, ChannelImage] = {}
    for row, info in parts:
        image = ChannelImage(row.channel, row.file, *row.index)
        if images.setdefault(row.channel, image) != image:
            raise InputError(
                "a plate has two images for one channel of a site",
                where=row.where,
                expected=f"one image of channel {row.channel} at {key.name}",
                got=f"{row.file} and {images[row.channel].file}",
                fix="take one out, or tell them apart by tile, timepoint or experiment",
            )
        if info.shape != parts[0][1].shape:
            raise InputError(
                "the channels of a site differ in shape",
                where=row.where,
                expected=_words(parts[0][1]),
                got=_words(info),
                fix="correct the file",
            )
    files = sorted({row.file for row, _ in parts})
    return Site(
        key,
        tuple(sorted({row.tile for row, _ in parts})),
        tuple(images[name] for name in sorted(images, key=natural)),
        parts[0][1].shape,
        digest([marks[file] for file in files]),
        parts[0][0].hours,
    )
