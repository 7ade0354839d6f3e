"""glibc's heap, kept in bounds: what finished units leave behind goes back to the system.

Light, so that a program can call `bound_heap` before it imports what fills the heap.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import time

# mallopt(3): glibc's parameters by number.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_ARENAS = 2
# From this size on an array has pages of its own, which go back when it goes. glibc would raise
# the limit to the size of whatever was freed last; a lower one costs more page faults.
_OWN_PAGES_BYTES = 8 << 20
# So much may lie free at the end of the heap before a call of `free` gives it back: glibc's 128 KB
# hand every tile's arrays to the system, for the next tile to fetch them again page by page.
_KEPT_BYTES = 64 << 20
_PAUSE_S = 0.5
_given_back = 0.0


def bound_heap() -> None:
    """Few arenas for all threads, and large arrays in pages of their own.

    glibc gives each thread an arena of its own and keeps what was freed in it, so that a
    worker grew by a third from 25 to 400 tiles. Called before the large imports, a worker takes
    15 to 30 MB less and grows by 4 % in place of 7 (`tests/benchmarks/fusion_scaling.py`). What
    is left is fragments: see `give_back_memory`. Does nothing with another C library.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", str(_ARENAS))  # for worker processes
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(_OWN_PAGES_BYTES))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(_KEPT_BYTES))
    with contextlib.suppress(OSError, AttributeError):
        _libc().mallopt(_M_ARENA_MAX, _ARENAS)
        _libc().mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
        _libc().mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_memory() -> None:
    """Free pages between the allocations of finished units go back to the system, now and then.

    Without it a worker grows by a fifth from 25 to 400 tiles. Pages that are wanted again cost
    a microsecond each, hence the pause: calls within it do nothing.
    """
    global _given_back
    now = time.monotonic()
    if now - _given_back < _PAUSE_S:
        return
    _given_back = now
    with contextlib.suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")
