"""The most memory that processes ever held."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

_EVERY_S = 0.02


def peak_mb(pid: int | str = "self") -> float:
    """Peak resident size of a process in MB.

    `getrusage` would not do: a process that was just started takes over the peak of the one that
    started it.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise OSError(f"/proc/{pid}/status names no peak: this needs Linux")
    return int(found.group(1)) / 1024


@contextlib.contextmanager
def watched_children(text: str) -> Iterator[dict[int, float]]:
    """The peaks, MB, of the processes below this one whose command line holds `text` and that end
    meanwhile: looked at fifty times a second."""
    peaks: dict[int, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY_S):
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    if text in Path(f"/proc/{pid}/cmdline").read_text():
                        peaks[pid] = peak_mb(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def _descendants(pid: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                yield child
                yield from _descendants(child)
