"""Lets the tests import `warpbeam.*` straight from the checkout, new files included."""

import contextlib
import sys
import types
from pathlib import Path

if "warpbeam" not in sys.modules:
    _package = types.ModuleType("warpbeam")
    _package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["warpbeam"] = _package

with contextlib.suppress(ImportError):  # benchmarks run without it
    from hypothesis import settings

    # How long an example takes says more about the machine than about the code.
    settings.register_profile("warpbeam", deadline=None)
    settings.load_profile("warpbeam")


def pytest_configure() -> None:
    """JAX reads its flags once: a kernel's test that came first would set others than a job's,
    and a job in this process would round otherwise than one in worker processes."""
    from warpbeam.transforms.process import set_up_jax

    set_up_jax()
