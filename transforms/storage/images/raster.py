"""PNG and JPEG files through OpenCV, which decodes them faster than the alternatives.

A JPEG carries no checksum: bytes changed inside its data go unnoticed. A PNG's chunks
have a CRC-32 each, which is checked on reading.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import closing
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.images.ref import ImageInfo, corrupt, truncated, unreadable
from warpbeam.transforms.storage.images.source import Source, open_source

PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
TAIL = 4096  # some writers put padding behind the end mark
NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG segments from 0xC0 to 0xCF that are no start of frame
Array = np.ndarray[Any, np.dtype[Any]]


class RasterImage:
    """One PNG or JPEG; it is decoded as a whole for every box."""

    def __init__(self, file: str) -> None:
        self._file = file
        with closing(open_source(file)) as source:
            self.info = _png(file, source) if _is_png(source) else _jpeg(file, source)

    def close(self) -> None:
        """No file is held open between reads."""

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box (z is 0), with a last axis of samples."""
        import cv2

        with closing(open_source(self._file)) as source:
            data = source.read_at(0, source.size)
        if data.startswith(PNG):
            _check_crc(self._file, data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.shape[:2] != self.info.shape:
            raise corrupt(self._file, "the decoder gave up")
        return image.reshape(1, *self.info.shape, -1)[box.slices]


def _is_png(source: Source) -> bool:
    return source.read_at(0, len(PNG)) == PNG


def _png(file: str, source: Source) -> ImageInfo:
    head = source.read_at(0, 33)
    if len(head) < 33:
        raise truncated(file, expected=33, got=source.size)
    width, height, bits, kind = struct.unpack(">IIBB", head[16:26])
    _check_end(file, source, PNG_END)
    return _info(file, (height, width), "uint16" if bits == 16 else "uint8", kind not in (0, 4))


def _jpeg(file: str, source: Source) -> ImageInfo:
    if source.read_at(0, 3) != JPEG:
        raise unreadable(file, "it starts as neither TIFF nor PNG nor JPEG does")
    at = 2
    while len(head := source.read_at(at, 10)) == 10 and head[0] == 0xFF:
        if 0xC0 <= head[1] <= 0xCF and head[1] not in NO_FRAME:
            height, width, samples = struct.unpack(">HHB", head[5:10])
            _check_end(file, source, JPEG_END)
            return _info(file, (height, width), "uint8", samples > 1)
        at += 1 if head[1] == 0xFF else 2 + struct.unpack(">H", head[2:4])[0]
    if at + 10 > source.size:
        raise truncated(file, expected=at + 10, got=source.size)
    raise unreadable(file, "the JPEG has no start of frame")


def _info(file: str, shape: tuple[int, int], dtype: str, colour: bool) -> ImageInfo:
    if not all(shape):
        raise unreadable(file, f"its size is {shape[1]} x {shape[0]} px")
    return ImageInfo(shape, dtype, 1, 1, None, shape, colour=colour)


def _check_end(file: str, source: Source, mark: bytes) -> None:
    tail = source.read_at(max(0, source.size - TAIL), TAIL)
    if mark not in tail:
        raise truncated(file, expected=source.size + len(mark), got=source.size)


def _check_crc(file: str, data: bytes) -> None:
    view, at = memoryview(data), len(PNG)
    while at + 12 <= len(data):
        size, kind = struct.unpack(">I4s", view[at : at + 8])
        body, end = view[at + 4 : at + 8 + size], at + 12 + size
        if end > len(data) or zlib.crc32(body) != struct.unpack(">I", view[end - 4 : end])[0]:
            raise corrupt(file, f"the CRC of a PNG chunk at byte {at} does not match")
        if kind == b"IEND":
            return
        at = end
