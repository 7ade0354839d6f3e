"""The most memory that this process ever held."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mb() -> float:
    """Peak resident size in MB.

    `getrusage` would not do: a process that was just started takes over the peak of the one that
    started it.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("/proc/self/status names no peak: this needs Linux")
    return int(found.group(1)) / 1024
