"""What a worker process sets up once, so that its threads and memory stay in bounds."""

from __future__ import annotations

import contextlib
import ctypes
import functools

import cv2

# mallopt(3): glibc's parameters by number.
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
_ARENAS = 2
_MMAP_FROM_BYTES = 1 << 20


@functools.cache
def set_up_process() -> None:
    """Library calls use one thread each; memory of finished units goes back to the system.

    Beam's workers are the threads: libraries with threads of their own only fight with them.
    glibc gives each thread an arena of its own and keeps what was freed in it, so that a
    worker grew by a third from 25 to 400 tiles (measured); with few arenas, and whole shards
    outside of them, it does not.
    """
    cv2.setNumThreads(1)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES)
