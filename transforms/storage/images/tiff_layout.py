"""Where the planes of one image of a TIFF lie, taken from its directories once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.ref import ImageInfo, output_dtype, truncated, unreadable
from warpbeam.transforms.storage.images.source import (
    is_remote,
    local_path,
    open_binary,
    open_source,
)
from warpbeam.transforms.storage.images.tiff_ifd import check_chain
from warpbeam.transforms.storage.images.tiff_voxel import channel_names, voxel_um

RGB, YCBCR = 2, 6


@dataclass(frozen=True)
class Plane:
    """One plane: raw bytes at `offset`, or the segments of a tifffile `page`."""

    file: str
    offset: int | None
    page: Any


@dataclass(frozen=True)
class Layout:
    """The planes of one series.

    Args:
        axes: letters before `YX`, of TCZ (Z also for pages without a meaning).
        lead: their lengths.
        plane_shape: y, x, samples.
        dtype: as stored, with byte order.
        planes: one per index of `lead`, last axis fastest; empty where only the whole
            series can be decoded.
    """

    axes: str
    lead: tuple[int, ...]
    plane_shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    planes: tuple[Plane, ...]
    info: ImageInfo


def read_layout(file: str, series: int) -> Layout:
    """The layout of one series, after checks that all its bytes are there.

    Raises:
        InputError: not a TIFF, truncated, no such series, or axes that have no meaning here.
    """
    with open_tiff(file) as tiff:
        if series >= len(tiff.series):
            raise InputError(
                "a file has no such series",
                where=file,
                expected=f"a series from 0 to {len(tiff.series) - 1}",
                got=f"series {series}",
                fix="correct the series in the tile list",
            )
        return _layout(file, tiff, series)


@contextmanager
def open_tiff(file: str) -> Iterator[Any]:
    """A `tifffile.TiffFile`, after a walk through its directories."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs is raised here
    source = open_source(file)
    try:
        check_chain(source, file)
    finally:
        source.close()
    with open_binary(file) as stream:
        given = stream if is_remote(file) else local_path(file)
        try:
            tiff = tifffile.TiffFile(given)
        except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError) as cause:
            raise unreadable(file, cause) from cause
        with tiff:
            yield tiff


def _layout(file: str, tiff: Any, index: int) -> Layout:
    series = tiff.series[index]
    keyframe = series.keyframe
    axes, shape = _named_axes(file, series.axes, series.shape, keyframe.photometric)
    tail = "YXS" if axes.endswith("S") else "YX"
    if not axes.endswith(tail):
        raise unreadable(file, f"its axes {series.axes} do not end with YX")
    lead_axes, lead = axes[: -len(tail)], shape[: len(shape) - len(tail)]
    height, width, samples = (*shape[len(lead) :], 1)[:3]
    plane_shape = (height, width, samples)
    planes = _planes(file, series, lead, plane_shape) if "S" not in lead_axes else ()
    length = dict(zip(axes, shape, strict=True))
    depth, channels = length.get("Z", 1), length.get("C", 1)
    voxels = (depth, *plane_shape[:2]) if depth > 1 else plane_shape[:2]
    info = ImageInfo(
        shape=voxels,
        dtype=output_dtype(series.dtype, file),
        channels=channels,
        times=length.get("T", 1),
        voxel_um=_voxel(voxel_um(tiff, index), len(voxels)),
        chunk=_chunk(planes, keyframe, voxels),
        series=len(tiff.series),
        channel_names=channel_names(tiff, index, channels),
        colour="S" in axes,
    )
    stored = keyframe.parent.byteorder + series.dtype.char
    return Layout(lead_axes, lead, plane_shape, np.dtype(stored), planes, info)


def _named_axes(
    file: str, axes: str, shape: tuple[int, ...], photometric: int
) -> tuple[str, tuple[int, ...]]:
    """The axes with pages of unknown meaning taken as z, and samples that are no colours as C."""
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    names = "".join(a for a, _ in kept)
    if "S" in names and photometric not in (RGB, YCBCR):
        names = names.replace("S", "C")
    if "Z" not in names:
        unknown = [a for a in names if a in "IQ"]
        names = names.replace(unknown[0], "Z") if len(unknown) == 1 else names
    if set(names) - set("TCZYXS") or len(set(names)) != len(names) or "YX" not in names:
        raise InputError(
            "a TIFF has axes that cannot be placed",
            where=file,
            expected="time, channel, z, y, x (T, C, Z, Y, X), in an OME-TIFF or ImageJ TIFF",
            got=f"axes {axes} of lengths {shape}",
            fix="save it as OME-TIFF with named axes, or one image per file",
        )
    return names, tuple(n for _, n in kept)


def _planes(
    file: str, series: Any, lead: tuple[int, ...], plane_shape: tuple[int, ...]
) -> tuple[Plane, ...]:
    """The planes, each checked to lie inside its file; empty if pages and planes differ."""
    count = math.prod(lead)
    if series.dataoffset is not None and not series.is_multifile:
        size = math.prod(plane_shape) * series.dtype.itemsize
        end = series.dataoffset + count * size
        held = series.keyframe.parent.filehandle.size
        if end > held:
            raise truncated(file, expected=end, got=held)
        return tuple(Plane(file, series.dataoffset + k * size, None) for k in range(count))
    pages = list(series.pages)
    for page in pages:
        _check_page(file, page)
    if len(pages) != count or math.prod(series.keyframe.shape) != math.prod(plane_shape):
        return ()
    if series.keyframe.shape[:2] != plane_shape[:2]:  # samples stored one after another
        return ()
    _check_codec(file, series.keyframe)
    series.keyframe.init_decode()
    return tuple(_plane(file, page, series.is_multifile) for page in pages)


def _check_codec(file: str, keyframe: Any) -> None:
    import tifffile

    try:
        tifffile.TIFF.DECOMPRESSORS[keyframe.compression]
        tifffile.TIFF.UNPREDICTORS[keyframe.predictor]
    except KeyError as cause:
        raise unreadable(file, f"no decoder for its compression: {cause}") from cause


def _plane(file: str, page: Any, multifile: bool) -> Plane:
    held_in = page.parent.filehandle.path if multifile else file
    raw = page.keyframe.is_contiguous and page.keyframe.predictor == 1
    raw = raw and page.keyframe.fillorder == 1 and len(page.dataoffsets) > 0
    return Plane(held_in, page.dataoffsets[0] if raw else None, page)


def _check_page(file: str, page: Any) -> None:
    if page is None:
        raise unreadable(
            file, "a plane that its metadata list is missing, or lies in a missing file"
        )
    size = page.parent.filehandle.size
    spans = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max((offset + count for offset, count in spans), default=0)
    if end > size:
        raise truncated(page.parent.filehandle.path or file, expected=end, got=size)


def _voxel(size: tuple[float, float, float] | None, ndim: int) -> tuple[float, ...] | None:
    kept = size[-ndim:] if size is not None else (math.nan,)
    return None if any(map(math.isnan, kept)) else kept


def _chunk(planes: tuple[Plane, ...], keyframe: Any, voxels: tuple[int, ...]) -> tuple[int, ...]:
    if not planes:
        return voxels
    block = segment_shape(keyframe) if planes[0].offset is None else (1, voxels[-1])
    return (1, *block)[-len(voxels) :]


def segment_shape(keyframe: Any) -> tuple[int, int]:
    """Rows and columns of a strip or tile."""
    if keyframe.is_tiled:
        return keyframe.tilelength, keyframe.tilewidth
    return min(keyframe.rowsperstrip, keyframe.imagelength), keyframe.imagewidth
