import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info

from warpbeam.transforms import process
from warpbeam.transforms.process import give_back_memory, set_up_process


def test_library_calls_use_one_thread_each():
    np.eye(2) @ scipy.linalg.inv(np.eye(2))
    set_up_process()
    assert cv2.getNumThreads() == 1
    pools = threadpool_info()
    assert pools
    assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}


def test_free_pages_between_live_allocations_go_back(monkeypatch):
    set_up_process()
    live = _fragments()
    monkeypatch.setattr(process, "_given_back", 0.0)
    before = _resident_mb()
    give_back_memory()
    assert before - _resident_mb() > 50
    assert len(live) == 128


def test_pages_go_back_now_and_then_only(monkeypatch):
    trims = []
    libc = type("Libc", (), {"malloc_trim": lambda self, pad: trims.append(pad)})()
    clock = iter([10.0, 10.1, 10.25, 10.3])
    monkeypatch.setattr(process, "_libc", lambda: libc)
    monkeypatch.setattr(process.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(process, "_given_back", 0.0)
    for _ in range(4):
        give_back_memory()
    assert len(trims) == 2


def test_another_c_library_is_left_alone(monkeypatch):
    def missing():
        raise OSError("no such library")

    monkeypatch.setattr(process, "_libc", missing)
    monkeypatch.setattr(process, "_given_back", 0.0)
    give_back_memory()


def _fragments() -> list[np.ndarray]:
    """Arrays that stay, each beside one that goes: 128 MB that are free in pieces."""
    return [np.ones(1 << 20, np.uint8) for _ in range(256)][::2]


def _resident_mb() -> float:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        pytest.skip("/proc tells no resident size: this needs Linux")
    return int(found.group(1)) / 1024
