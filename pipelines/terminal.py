"""What libraries say, kept from the terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, TextIO


def quiet_libraries() -> None:
    """Beam logs and prints the stack of a failed unit several times; the ledger keeps it once."""
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    logging.getLogger("warpbeam").setLevel(logging.WARNING)
    if not isinstance(sys.stderr, _WithoutStacks):
        sys.stderr = _WithoutStacks(sys.stderr)


class _WithoutStacks:
    """A stream that leaves out stacks of Beam's workers, and that nobody need read any more: a
    worker that cannot print never answers, and the job would wait for it (measured)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._ends_a_stack = stream, False

    def write(self, text: str) -> int:
        left_out = _is_stack(text) or (self._ends_a_stack and text == "\n")
        self._ends_a_stack = _is_stack(text)
        if not left_out:
            with contextlib.suppress(BrokenPipeError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_stack(text: str) -> bool:
    return text.startswith("Traceback (most recent call last)") and "apache_beam/runners/" in text
