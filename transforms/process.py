"""What a worker process sets up once, so that its threads and memory stay in bounds."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os

import cv2
from threadpoolctl import threadpool_limits

# mallopt(3): glibc's parameter by number.
_M_ARENA_MAX = -8
_ARENAS = 2
_JAX_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@functools.cache
def set_up_process() -> None:
    """Library calls use one thread each; memory of finished units goes back to the system.

    Beam's workers are the threads: libraries with threads of their own only fight with them.
    glibc gives each thread an arena of its own and keeps what was freed in it, so that a
    worker grew by a third from 25 to 400 tiles; with few arenas by an eighth (measured).
    """
    cv2.setNumThreads(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for what is loaded later
    threadpool_limits(1)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, _ARENAS)


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
