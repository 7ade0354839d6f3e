"""`read_sections`: a stack of sections, as a tile list with one tile per section.

A folder of images is sorted by the number in which the names differ, which is the number of the
section too, so that a section that is missing leaves a gap. A volume is cut into its planes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageRef, probe
from warpbeam.transforms.storage.images.chunked import is_store
from warpbeam.transforms.storage.images.source import exists, is_folder, join, list_files
from warpbeam.transforms.storage.tiles.assembling import assemble
from warpbeam.transforms.storage.tiles.model import Tile, TileList
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.reading import IMAGES, read_tiles
from warpbeam.transforms.storage.tiles.rows import Row

_NUMBER = re.compile(r"\d+")
_MARKERS = ("zarr.json", ".zgroup", ".zarray", "attributes.json")


def read_sections(source: str, *, options: TileOptions | None = None) -> TileList:
    """The sections of a folder of images, a volume, or a tile list.

    Args:
        source: a folder of TIFF, PNG or JPEG files (one per section), a TIFF with many pages, an
            OME-Zarr, Zarr or N5 volume, or a tile list with one tile per section.
        options: see `TileOptions`; a name pattern needs the field {section}.

    Raises:
        InputError: anything wrong with the stack or its files.
    """
    chosen = options or TileOptions()
    flat = replace(chosen, voxel_um=_in_plane(chosen.voxel_um), whole=True)
    if not exists(source) and "|" not in source:
        raise InputError(
            "a stack of sections does not exist",
            where=source,
            expected="a folder of images, a volume, or a tile list",
            got="no such file or folder",
            fix="correct the path",
        )
    if is_store(source) or _is_array(source) or _is_image(source):
        return _planes(source, chosen)
    if is_folder(source) and chosen.pattern is None and chosen.format is None:
        names = [n for n in list_files(source, depth=0) if n.lower().endswith(IMAGES)]
        if names:
            return _checked(assemble(_rows(source, names), flat, source), chosen, source)
    return _checked(read_tiles(source, options=flat), chosen, source)


def at_time(sections: TileList, time: int | None) -> TileList:
    """The sections of one time; all, where there is one time only.

    Raises:
        InputError: there are several times and none was chosen, or none is the chosen one.
    """
    times = sorted({tile.time for tile in sections})
    if time is None and len(times) == 1:
        return sections
    if time not in times:
        raise InputError(
            "the sections were recorded at several times"
            if time is None
            else "no section was recorded at this time",
            where="time",
            expected=f"one of {', '.join(map(str, times))}",
            got="none" if time is None else str(time),
            fix=f"choose one, such as --set time={times[0]}; another is a run of its own",
        )
    return replace(sections, tiles=tuple(tile for tile in sections if tile.time == time))


def _is_array(source: str) -> bool:
    return is_folder(source) and any(exists(join(source, name)) for name in _MARKERS)


def _is_image(source: str) -> bool:
    return source.lower().endswith(IMAGES) and not is_folder(source)


def _rows(folder: str, names: Sequence[str]) -> list[Row]:
    ordered = sorted(names, key=natural)
    return [
        Row(join(folder, n), n, join(folder, n), (0.0, 0.0), tile=n, section=str(number))
        for n, number in zip(ordered, _numbers(ordered), strict=True)
    ]


def _numbers(names: Sequence[str]) -> list[int]:
    """The one number in which all names differ; their rank where there is no such number."""
    texts = {_NUMBER.sub("#", name) for name in names}
    if len(texts) == 1:
        columns = list(zip(*([int(d) for d in _NUMBER.findall(n)] for n in names), strict=True))
        varying = [column for column in columns if len(set(column)) == len(names)]
        if len(varying) == 1 and sum(len(set(c)) > 1 for c in columns) == 1:
            return list(varying[0])
    return list(range(len(names)))


def _planes(source: str, options: TileOptions) -> TileList:
    info = probe(ImageRef(source))
    if len(info.shape) != 3:
        raise InputError(
            "a stack needs several sections",
            where=source,
            expected="a volume with planes along z",
            got=f"shape {info.shape}",
            fix="give the folder of all sections, or a volume",
        )
    flat = info.one_plane()
    names = info.channel_names or tuple(str(c) for c in range(info.channels))
    tiles = tuple(
        Tile(
            time, z, f"z{z}",
            tuple(ImageRef(source, 0, c, time, z) for c in range(info.channels)),
            flat.shape, info.dtype, (0.0, 0.0),
        )
        for z in range(info.shape[0])
        for time in range(info.times)
    )  # fmt: skip
    return TileList(tiles, names, _voxel(options, info.voxel_um))


def _voxel(options: TileOptions, found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """zyx or yx; what the user says first."""
    given = options.voxel_um
    if given is None:
        return found
    return (given,) * 3 if isinstance(given, int | float) else tuple(given)


def _in_plane(voxel: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    return voxel[-2:] if isinstance(voxel, tuple) else voxel


def _checked(tiles: TileList, options: TileOptions, source: str) -> TileList:
    """One two-dimensional tile per section and time.

    Raises:
        InputError: otherwise.
    """
    if tiles.ndim != 2:
        raise InputError(
            "sections are two-dimensional",
            where=source,
            expected="one plane per section",
            got=f"images of shape {tiles.tiles[0].shape}",
            fix="give the volume itself, or use `warpbeam register` for volumes",
        )
    for (time, section), group in tiles.montages().items():
        if len(group) > 1:
            raise InputError(
                "a section has several tiles",
                where=f"section {section}, time {time} of {source}",
                expected="one image per section",
                got=", ".join(t.tile for t in group[:4]),
                fix="give each its number in a column `section`, or stitch the tiles first",
            )
    if len(tiles.montages()) < 2:
        raise InputError(
            "a stack needs several sections",
            where=source,
            expected="at least two sections",
            got="1",
            fix="give the folder of all sections",
        )
    return replace(tiles, voxel_um=_voxel(options, tiles.voxel_um))
