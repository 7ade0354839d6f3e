"""What a drawn shard tells of itself, by samples: how much is covered, and how bright it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.ledger import Record

_STRIDE = 16
# How many brightness levels a shard reports for the display window of the volume.
_QUANTILES = np.linspace(0, 1, 33)


def sampled(shape: Sequence[int]) -> tuple[slice, ...]:
    """The voxels that stand for all: the middle of every 16, so that neither end counts more."""
    return tuple(slice(min(_STRIDE, n) // 2, None, _STRIDE) for n in shape)


def brightness(sample: np.ndarray[Any, Any]) -> list[float]:
    """The quantiles of a sample of the covered voxels; empty where none is known."""
    sample = sample[np.isfinite(sample)]
    return np.quantile(sample, _QUANTILES).tolist() if sample.size else []


def drawn(
    box: Box, *, read: int, written: int, covered: float, quantiles: Sequence[list[float]]
) -> Record:
    """The record of a shard.

    Args:
        box: its voxels, tczyx.
        read, written: bytes.
        covered: voxels on which something lies.
        quantiles: `brightness` of each of its channels.
    """
    return {
        "bytes_read": read,
        "bytes_written": written,
        "voxels": box.size,
        "covered": round(covered),
        "channel": box.start[1],
        "quantiles": list(quantiles),
    }
