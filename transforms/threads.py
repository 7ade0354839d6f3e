"""Libraries that start threads of their own are told not to: Beam's workers are the threads."""

from __future__ import annotations

import cv2


def one_thread_each() -> None:
    """One thread for each library call of this process (measured: more only fight)."""
    cv2.setNumThreads(1)
