"""What every threshold would find, on one sheet."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Num, UInt8

_SIDE, _HEAD, _COLUMNS = 480, 24, 4


def contact_sheet(
    image: Num[np.ndarray, "y x"], masks: Mapping[str, Bool[np.ndarray, "y x"] | None]
) -> UInt8[np.ndarray, "rows columns"]:
    """The image and masks below their names, in rows of four; None for what found nothing."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    cells = [_cell("image", grey)]
    for name, mask in masks.items():
        pixels = np.zeros(image.shape, np.uint8) if mask is None else mask.astype(np.uint8) * 255
        cells.append(_cell(name if mask is not None else f"{name}: none", pixels))
    blank = np.zeros_like(cells[0])
    cells += [blank] * (-len(cells) % _COLUMNS)
    rows = [np.hstack(cells[k : k + _COLUMNS]) for k in range(0, len(cells), _COLUMNS)]
    return np.vstack(rows)


def _cell(name: str, pixels: UInt8[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y2 x2"]:
    factor = _SIDE / max(pixels.shape)
    height, width = (max(1, round(n * factor)) for n in pixels.shape)
    shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    head = np.zeros((_HEAD, width), np.uint8)
    cv2.putText(head, name, (6, _HEAD - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 255, 1, cv2.LINE_AA)
    return np.vstack([head, shrunk])
