"""What a worker process sets up once, so that its threads and memory stay in bounds."""

from __future__ import annotations

import functools
import os

import cv2
from threadpoolctl import threadpool_limits

from warpbeam.transforms.heap import bound_heap

_JAX_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@functools.cache
def set_up_process() -> None:
    """Library calls use one thread each, and the heap is bounded.

    Beam's workers are the threads: libraries with threads of their own only fight with them.
    """
    bound_heap()
    cv2.setNumThreads(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for what is loaded later
    threadpool_limits(1)


def set_up_itk() -> None:
    """One thread per call of ITK. Takes effect if ITK was not loaded before."""
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
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
