"""From rows to tiles: channels and times are gathered, files looked at, positions computed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageInfo, ImageRef, read
from warpbeam.transforms.storage.tiles.check import check_alike, check_mask, probe_all, run_all
from warpbeam.transforms.storage.tiles.matrices import (
    check_matrix,
    match_matrices,
    read_matrices,
)
from warpbeam.transforms.storage.tiles.model import Matrix, Tile, TileList, sort_key
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.placing import (
    matrix_position,
    no_position,
    pixel_position,
    voxel_size,
)
from warpbeam.transforms.storage.tiles.rows import GRID, Row

ONLY_CHANNEL = "0"
SAME_PLACE_PX = 1.0  # channels of one tile that were recorded one after another
Key = tuple[int, int, str]


@dataclass(frozen=True)
class Part:
    """One channel of one tile."""

    row: Row
    info: ImageInfo
    ref: ImageRef
    channel: str
    key: Key


def assemble(rows: Sequence[Row], options: TileOptions, source: str) -> TileList:
    """The tile list of `rows`.

    Raises:
        InputError: no rows, or any of the problems that the callees name.
    """
    if not rows:
        raise InputError(
            "a tile list is empty",
            where=source,
            expected="at least one tile",
            got="none",
            fix="give another list or folder",
        )
    if options.whole:
        rows = [_whole_section(row) for row in rows]
    refs = [ImageRef(row.file, row.series) for row in rows]
    _check_twice(rows)
    infos = probe_all(refs)
    check_alike(refs, infos)
    _check_colour(refs, infos)
    voxel = voxel_size(rows, infos, options)
    groups, channels = _grouped(_parts(rows, infos))
    matrices = _matrices(groups, options)
    extent = tuple(max(n) for n in zip(*(i.shape for i in infos), strict=True))
    tiles = []
    for key, parts in groups.items():
        tiles.append(_tile(key, parts, matrices.get(key), voxel, extent, options))
    run_all(lambda t: check_mask(t.mask, t.shape) if t.mask else None, tiles)
    return TileList(tuple(sorted(tiles, key=sort_key)), channels, voxel)


def _whole_section(row: Row) -> Row:
    if row.position is None and row.matrix is None:
        row = replace(row, position=(0.0, 0.0))
    return replace(row, tile=row.section) if row.tile is None else row


def _check_twice(rows: Sequence[Row]) -> None:
    seen: dict[tuple[object, ...], Row] = {}
    for row in rows:
        same = (row.file, row.series, row.channel, row.time)
        first = seen.setdefault(same, row)
        if first is not row:
            raise _duplicate(row, first, f"the file {row.name}")


def _duplicate(row: Row, first: Row, what: str) -> InputError:
    return InputError(
        "a tile list has a duplicate tile",
        where=row.where,
        expected="each channel of each tile once",
        got=f"{what} again, after {first.where}",
        fix="take one out, or tell them apart with the columns tile, section, channel or time"
        " (or these fields of the name pattern)",
    )


def _check_colour(refs: Sequence[ImageRef], infos: Sequence[ImageInfo]) -> None:
    """Reads the first colour image, so that colours that differ are refused before work starts."""
    for ref, info in zip(refs, infos, strict=True):
        if info.colour:
            read(ref)
            return


def _parts(rows: Sequence[Row], infos: Sequence[ImageInfo]) -> list[Part]:
    sections = _sections(rows)
    names = _names(rows, sections)
    parts = []
    for row, info, section, name in zip(rows, infos, sections, names, strict=True):
        for channel, label in _channels(row, info):
            for time, at in _times(row, info):
                ref = ImageRef(row.file, row.series, channel, time)
                parts.append(Part(row, info, ref, label, (at, section, name)))
    return parts


def _sections(rows: Sequence[Row]) -> list[int]:
    """Numbers as they are; names (of wells, say) by their place in natural order."""
    given = {row.section for row in rows if row.section is not None}
    if all(re.fullmatch(r"-?\d+", s) for s in given):
        return [int(row.section or 0) for row in rows]
    order = {s: k for k, s in enumerate(sorted(given, key=natural))}
    return [order[row.section] if row.section is not None else 0 for row in rows]


def _names(rows: Sequence[Row], sections: Sequence[int]) -> list[str]:
    """Tile names: as given, else that of the first of the files at one place, else the file's."""
    stems = [_stem(os.path.basename(row.name), row) for row in rows]
    spots = [
        (section, row.time, row.channel, stem)
        for row, section, stem in zip(rows, sections, stems, strict=True)
    ]
    if len(set(spots)) < len(spots):
        stems = [_stem(row.name.replace("/", "_"), row) for row in rows]
    first: dict[tuple[object, ...], str] = {}
    names = {}
    for k in sorted(range(len(rows)), key=lambda k: natural(rows[k].name)):
        row, name = rows[k], stems[k]
        several = row.channel is not None or row.time is not None
        if several and (row.position is not None or row.matrix is not None):
            name = first.setdefault((sections[k], row.position, row.matrix), name)
        names[k] = row.tile if row.tile is not None else name
    return [names[k] for k in range(len(rows))]


def _stem(name: str, row: Row) -> str:
    stem = re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", name.replace("\\", "_").replace("*", ""))
    return f"{stem}_s{row.series}" if row.series else stem


def _channels(row: Row, info: ImageInfo) -> list[tuple[int, str]]:
    """Index in the file and name of the channels that a row stands for."""
    names = info.channel_names or tuple(str(c) for c in range(info.channels))
    if info.channels == 1:
        inside = info.channel_names[0] if info.channel_names else ONLY_CHANNEL
        return [(0, row.channel if row.channel is not None else inside)]
    if row.channel is None:
        return list(enumerate(names))
    if row.channel in names:
        return [(names.index(row.channel), row.channel)]
    if row.channel.isdigit() and int(row.channel) < info.channels:
        return [(int(row.channel), names[int(row.channel)])]
    raise InputError(
        "a file has no such channel",
        where=row.where,
        expected=f"one of {', '.join(names)}",
        got=row.channel,
        fix="correct the channel; in a file with several it is a name or an index from 0",
    )


def _times(row: Row, info: ImageInfo) -> list[tuple[int, int]]:
    """Index in the file and time of the frames that a row stands for."""
    if info.times == 1:
        return [(0, row.time or 0)]
    if row.time is None:
        return [(t, t) for t in range(info.times)]
    if row.time < info.times:
        return [(row.time, row.time)]
    raise InputError(
        "a file has no such time",
        where=row.where,
        expected=f"time 0 to {info.times - 1}",
        got=str(row.time),
        fix="correct the time",
    )


def _grouped(parts: Sequence[Part]) -> tuple[dict[Key, list[Part]], tuple[str, ...]]:
    """The parts of each tile in the order of the channels."""
    groups: dict[Key, dict[str, Part]] = {}
    for part in parts:
        held = groups.setdefault(part.key, {})
        first = held.setdefault(part.channel, part)
        if first is not part:
            what = f"tile {part.key[2]!r} (section {part.key[1]}, time {part.key[0]})"
            raise _duplicate(part.row, first.row, f"{what}, channel {part.channel!r}")
    listed = dict.fromkeys(p.channel for p in parts)
    inside = all(p.info.channels > 1 for p in parts)
    channels = tuple(listed if inside else sorted(listed, key=natural))
    for held in groups.values():
        for channel in channels:
            if channel not in held:
                part = next(iter(held.values()))
                raise InputError(
                    "a tile lacks a channel that others have",
                    where=f"{part.row.where}, tile {part.key[2]!r}",
                    expected=f"channels {', '.join(channels)}",
                    got=f"channels {', '.join(held)}",
                    fix="add the file, or take the tile or the channel out",
                )
    return {key: [held[c] for c in channels] for key, held in groups.items()}, channels


def _matrices(groups: dict[Key, list[Part]], options: TileOptions) -> dict[Key, Matrix]:
    if options.transforms is not None:
        names = {key: [p.row.name for p in parts] for key, parts in groups.items()}
        given = read_matrices(options.transforms)
        found = match_matrices(given, names, options.transforms)
        where = f"{options.transforms}, tile "
    else:
        found = {k: p[0].row.matrix for k, p in groups.items() if p[0].row.matrix is not None}
        where = "tile "
    for key, matrix in found.items():
        check_matrix(matrix, len(groups[key][0].info.shape), f"{where}{key[2]!r}")
    return found


def _tile(
    key: Key,
    parts: Sequence[Part],
    matrix: Matrix | None,
    voxel: tuple[float, ...] | None,
    extent: tuple[int, ...],
    options: TileOptions,
) -> Tile:
    first = parts[0]
    shape = first.info.shape
    position = _position(first.row, shape, voxel, extent, options)
    for part in parts[1:]:
        other = _position(part.row, shape, voxel, extent, options)
        if part.info.shape != shape or _apart(position, other) > SAME_PLACE_PX:
            raise InputError(
                "the channels of a tile differ",
                where=part.row.where,
                expected=f"shape {shape} at {position}, as {first.row.name} has",
                got=f"shape {part.info.shape} at {other}",
                fix="correct the list, or give the images different tile names",
            )
    if position is None:
        if matrix is None:
            raise no_position(first.row)
        position = matrix_position(matrix)
    masks = [p.row.mask for p in parts if p.row.mask is not None]
    return Tile(
        time=key[0],
        section=key[1],
        tile=key[2],
        images=tuple(p.ref for p in parts),
        shape=shape,
        dtype=first.info.dtype,
        position=position,
        matrix=matrix,
        mask=ImageRef(masks[0]) if masks else None,
    )


def _position(
    row: Row,
    shape: tuple[int, ...],
    voxel: tuple[float, ...] | None,
    extent: tuple[int, ...],
    options: TileOptions,
) -> tuple[float, ...] | None:
    return pixel_position(row, extent if row.unit == GRID else shape, voxel, options)


def _apart(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> float:
    if a is None or b is None:
        return 0.0 if a == b else float("inf")
    return max(abs(p - q) for p, q in zip(a, b, strict=True))
