"""Boxes of TIFF images: raw planes by byte range, compressed ones by the segments they touch."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.images.cache import OpenFiles
from warpbeam.transforms.storage.images.ref import ImageInfo, corrupt
from warpbeam.transforms.storage.images.source import Source, open_source
from warpbeam.transforms.storage.images.tiff_layout import (
    Plane,
    open_tiff,
    read_layout,
    segment_shape,
)

Array = np.ndarray[Any, np.dtype[Any]]


class TiffImage:
    """One series of a TIFF; its bytes come from `sources`, which bounds the open files."""

    def __init__(self, file: str, series: int, sources: OpenFiles[Source]) -> None:
        self._file, self._series, self._sources = file, series, sources
        self._layout = read_layout(file, series)
        self._token = object()  # a file that was written again gets descriptors of its own

    @property
    def info(self) -> ImageInfo:
        return self._layout.info

    def close(self) -> None:
        """The files are closed by the cache of sources."""

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box (z 0 for one plane), with a last axis of samples."""
        layout = self._layout
        if not layout.planes:
            return self._read_whole(channel, time)[box.slices]
        out = np.empty((*box.shape, layout.plane_shape[2]), layout.dtype.newbyteorder("="))
        for k, z in enumerate(range(box.start[0], box.stop[0])):
            plane = layout.planes[self._index(channel, time, z)]
            with self._borrow(plane.file) as source:
                if plane.offset is not None:
                    self._read_raw(source, plane.offset, box, out[k])
                else:
                    self._read_segments(source, plane, box, out[k])
        return out

    def _borrow(self, file: str) -> AbstractContextManager[Source]:
        return self._sources.borrow((file, self._token), lambda: open_source(file))

    def _index(self, channel: int, time: int, z: int) -> int:
        place = {"T": time, "C": channel, "Z": z}
        where = [place[a] for a in self._layout.axes]
        return int(np.ravel_multi_index(where, self._layout.lead)) if where else 0

    def _read_raw(self, source: Source, offset: int, box: Box, out: Array) -> None:
        dtype, (_, width, samples) = self._layout.dtype, self._layout.plane_shape
        (_, top, left), (_, bottom, right) = box.start, box.stop
        row = width * samples * dtype.itemsize
        if right - left == width and dtype == out.dtype:
            self._fill(source, offset + top * row, out)
            return
        band = np.empty((max(1, source.band_bytes // row), width, samples), dtype)
        for y in range(top, bottom, len(band)):
            rows = band[: bottom - y]
            self._fill(source, offset + y * row, rows)
            out[y - top : y - top + len(rows)] = rows[:, left:right]

    def _fill(self, source: Source, offset: int, out: Array) -> None:
        """Reads as many bytes as the array, which is contiguous, has."""
        got = source.read_into(offset, out.data.cast("B"))
        if got < out.nbytes:
            raise corrupt(self._file, f"the file ends at byte {offset + got}")

    def _read_segments(self, source: Source, plane: Plane, box: Box, out: Array) -> None:
        page, keyframe = plane.page, plane.page.keyframe
        height, width = self._layout.plane_shape[:2]
        tall, wide = segment_shape(keyframe)
        across = -(-width // wide)
        (_, top, left), (_, bottom, right) = box.start, box.stop
        rows, columns = (
            range(top // tall, -(-bottom // tall)),
            range(left // wide, -(-right // wide)),
        )
        for i, j in itertools.product(rows, columns):
            block = Box(
                (i * tall, j * wide), (min((i + 1) * tall, height), min((j + 1) * wide, width))
            )
            common = block & Box((top, left), (bottom, right))
            data = self._segment(source, page, i * across + j, block.shape)
            inside = common.relative_to(block.start).slices
            out[common.relative_to((top, left)).slices] = (
                keyframe.nodata if data is None else data[inside]
            )

    def _segment(
        self, source: Source, page: Any, index: int, shape: tuple[int, ...]
    ) -> Array | None:
        """One strip or tile as y, x, samples; None for one that was left out as empty."""
        count = page.databytecounts[index]
        if count == 0:
            return None
        data = source.read_at(page.dataoffsets[index], count)
        if len(data) < count:
            raise corrupt(self._file, f"segment {index} ends early")
        keyframe = page.keyframe
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        decode = keyframe.decode
        try:
            block, _, held = decode(data, index, **tables)
        except MemoryError:
            raise
        except Exception as cause:  # every codec has an error class of its own
            raise corrupt(self._file, f"segment {index}: {cause}") from cause
        if block is None or held[1] < shape[0] or held[2] < shape[1]:
            raise corrupt(self._file, f"segment {index} holds {held[1:3]} pixels, not {shape}")
        plane: Array = block.reshape(block.shape[-3:])
        if plane.shape[0] < shape[0] or plane.shape[1] < shape[1]:
            raise corrupt(self._file, f"segment {index} holds {plane.shape[:2]}, not {shape}")
        return plane

    def _read_whole(self, channel: int, time: int) -> Array:
        layout = self._layout
        try:
            with open_tiff(self._file) as tiff:
                data = tiff.series[self._series].asarray()
        except (OSError, MemoryError):
            raise
        except Exception as cause:  # every codec has an error class of its own
            raise corrupt(self._file, cause) from cause
        cube = np.asarray(data).reshape(*layout.lead, *layout.plane_shape)
        cube = cube[tuple({"C": channel, "T": time}.get(a, slice(None)) for a in layout.axes)]
        left = [a for a in layout.axes if a in "ZS"]
        if "S" in left:  # samples stored one plane after another
            cube = np.moveaxis(cube[..., 0], left.index("S"), -1)
        return cube if "Z" in left else cube[np.newaxis]
