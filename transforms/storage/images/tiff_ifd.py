"""The chain of a TIFF's image file directories, walked to see whether the file is complete.

tifffile stops with a log line where the chain leads past the end of the file, so that a
truncated stack would look like a shorter one. TIFF 6.0, section 2; BigTIFF has 64-bit fields.
"""

from __future__ import annotations

import struct

from warpbeam.transforms.storage.images.ref import truncated, unreadable
from warpbeam.transforms.storage.images.source import Source


def check_chain(source: Source, file: str) -> None:
    """Follows the chain to its end.

    Raises:
        InputError: not a TIFF, a directory that lies past the end of the file, or a loop.
    """
    head = source.read_at(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise unreadable(file, "it does not start as a TIFF does" if head else "the file is empty")
    if struct.unpack(order + "H", head[2:4])[0] == 43:
        start, count_type, entry, pointer = 8, "Q", 20, "Q"
    else:
        start, count_type, entry, pointer = 4, "H", 12, "I"
    count_size, pointer_size = struct.calcsize(count_type), struct.calcsize(pointer)
    if len(head) < start + pointer_size:
        raise truncated(file, expected=start + pointer_size, got=source.size)
    offset = struct.unpack_from(order + pointer, head, start)[0]
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise unreadable(file, f"its directories form a loop at byte {offset}")
        seen.add(offset)
        if offset + count_size > source.size:
            raise truncated(file, expected=offset + count_size, got=source.size)
        count = struct.unpack(order + count_type, source.read_at(offset, count_size))[0]
        end = offset + count_size + count * entry
        if end + pointer_size > source.size:
            raise truncated(file, expected=end + pointer_size, got=source.size)
        offset = struct.unpack(order + pointer, source.read_at(end, pointer_size))[0]
    if not seen:
        raise unreadable(file, "the TIFF holds no image")
