"""What a worker process sets up once, so that its threads and memory stay in bounds."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import time

import cv2
from threadpoolctl import threadpool_limits

# mallopt(3): glibc's parameters by number.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_ARENAS = 2
# From this size on an array has pages of its own, which go back when it goes. glibc would raise
# the limit to the size of whatever was freed last; a lower one costs more page faults.
_OWN_PAGES_BYTES = 8 << 20
_PAUSE_S = 0.2
_given_back = 0.0
_JAX_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@functools.cache
def set_up_process() -> None:
    """Library calls use one thread each; memory of finished units goes back to the system.

    Beam's workers are the threads: libraries with threads of their own only fight with them.
    glibc gives each thread an arena of its own and keeps what was freed in it, so that a
    worker grew by a third from 25 to 400 tiles; with few arenas by a fifth (measured). What is
    left is fragments: see `give_back_memory`.
    """
    cv2.setNumThreads(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for what is loaded later
    threadpool_limits(1)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        _libc().mallopt(_M_ARENA_MAX, _ARENAS)
        _libc().mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)


def give_back_memory() -> None:
    """Free pages between the allocations of finished units go back to the system, now and then.

    Without it a worker grows by a fifth from 25 to 400 tiles, with it by a fourteenth
    (`tests/benchmarks/fusion_scaling.py`). Pages that are wanted again cost a microsecond each,
    hence the pause: calls within it do nothing.
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


def set_up_ants() -> None:
    """One thread per call of ITK. Takes effect if ANTs was not imported before."""
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")


@functools.cache
def set_up_jax() -> None:
    """One thread per JAX program on a CPU, and compiled programs kept on disk.

    A program takes seconds to compile and milliseconds to load; the store is shared by all
    processes of a machine. `JAX_COMPILATION_CACHE_DIR` names another place for it.
    """
    os.environ.setdefault("XLA_FLAGS", _JAX_FLAGS)
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "warpbeam", "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
