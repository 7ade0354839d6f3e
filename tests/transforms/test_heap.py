import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from warpbeam.transforms import heap
from warpbeam.transforms.heap import bound_heap, give_back_memory


def test_the_command_line_bounds_the_heap_before_it_imports_anything_large():
    heavy = ("numpy", "cv2", "tensorstore", "apache_beam", "jax")
    program = (
        "import sys; from warpbeam.transforms import heap\n"
        f"heap.bound_heap = lambda: print([m for m in {heavy} if m in sys.modules])\n"
        "from warpbeam.pipelines import cli; cli.main(['explain', 'fuse'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "[]", done.stderr


def test_free_pages_between_live_allocations_go_back(monkeypatch):
    bound_heap()
    live = _fragments()
    monkeypatch.setattr(heap, "_given_back", 0.0)
    before = _resident_mb()
    give_back_memory()
    assert before - _resident_mb() > 50
    assert len(live) == 128


def test_pages_go_back_now_and_then_only(monkeypatch):
    trims = []
    libc = type("Libc", (), {"malloc_trim": lambda self, pad: trims.append(pad)})()
    clock = iter([10.0, 10.2, 10.6, 10.8])
    monkeypatch.setattr(heap, "_libc", lambda: libc)
    monkeypatch.setattr(heap.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(heap, "_given_back", 0.0)
    for _ in range(4):
        give_back_memory()
    assert len(trims) == 2


def test_another_c_library_is_left_alone(monkeypatch):
    def missing():
        raise OSError("no such library")

    monkeypatch.setattr(heap, "_libc", missing)
    monkeypatch.setattr(heap, "_given_back", 0.0)
    bound_heap()
    give_back_memory()


def _fragments() -> list[np.ndarray]:
    """Arrays that stay, each beside one that goes: 128 MB that are free in pieces."""
    return [np.ones(1 << 20, np.uint8) for _ in range(256)][::2]


def _resident_mb() -> float:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        pytest.skip("/proc tells no resident size: this needs Linux")
    return int(found.group(1)) / 1024
