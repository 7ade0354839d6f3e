"""A synthetic plate with its truth: round cells that touch, speckles, noise, and motion.

Half of the positions are sparse, half crowded: there every second cell touches another. From one
time to the next all cells of a position move together, and each a little by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from plates import write_rows

SPECKLES = 3e-4
DRIFT_PX, SHIFT_PX = 4.0, 12.0


@dataclass(frozen=True)
class Position:
    """The cells of one tile at all its times: `centre` is (time, cell, yx)."""

    centre: np.ndarray
    radius: np.ndarray
    stretch: np.ndarray
    turn: np.ndarray
    height: np.ndarray
    size: int

    @classmethod
    def random(cls, seed: int, size: int, times: int, *, crowded: bool) -> Position:
        rng = np.random.default_rng(seed)
        cells = round(520 * (size / 2048) ** 2)
        radius = rng.uniform(9, 16, cells)
        centre = _placed(rng, radius, size, crowded=crowded)
        radius = radius[: len(centre)]
        steps = rng.normal(0, DRIFT_PX, (times, *centre.shape))
        steps += rng.uniform(-SHIFT_PX, SHIFT_PX, (times, 1, 2))
        steps[0] = 0
        n = len(centre)
        return cls(centre + np.cumsum(steps, axis=0), radius, rng.uniform(0.75, 1.0, n),
                   rng.uniform(0, np.pi, n), rng.uniform(900, 2500, n), size)  # fmt: skip

    def draw(self, time: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The image (uint16) and the labels (cell number + 1) at one time."""
        image = np.zeros((self.size, self.size), np.float32)
        labels = np.zeros((self.size, self.size), np.int32)
        nearest = np.full((self.size, self.size), np.inf, np.float32)
        for k, (cy, cx) in enumerate(self.centre[time]):
            window, distance = self._distance(k, cy, cx)
            if not distance.size:
                continue
            own = (distance < 1) & (distance < nearest[window])
            labels[window][own] = k + 1
            nearest[window][own] = distance[own]
            edge = np.clip((1 - distance) * 6, 0, 1) * (1 - 0.3 * distance**2)
            np.maximum(image[window], self.height[k] * edge, out=image[window])
        rng = np.random.default_rng([seed, time])
        image = cv2.GaussianBlur(image, (0, 0), 1.0)
        image += 400 + rng.normal(0, 40, image.shape).astype(np.float32)
        image[rng.random(image.shape) < SPECKLES] += 2500
        return np.clip(np.rint(image), 0, 65535).astype(np.uint16), labels

    def _distance(self, k: int, cy: float, cx: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where a cell lies, and the distance from its centre in its own radii."""
        reach = int(self.radius[k]) + 2
        low = [max(0, int(c) - reach) for c in (cy, cx)]
        high = [min(self.size, int(c) + reach + 1) for c in (cy, cx)]
        window = (slice(low[0], max(high[0], low[0])), slice(low[1], max(high[1], low[1])))
        y, x = np.mgrid[window]
        dy, dx = y - cy, x - cx
        c, s = np.cos(self.turn[k]), np.sin(self.turn[k])
        along, across = dx * c + dy * s, dy * c - dx * s
        distance = np.hypot(along, across / self.stretch[k]) / self.radius[k]
        return window, distance.astype(np.float32)


def _placed(
    rng: np.random.Generator, radius: np.ndarray, size: int, *, crowded: bool
) -> np.ndarray:
    """Centres that lie apart; in a crowd every second cell begins beside the one before."""
    found: list[np.ndarray] = []
    for k, r in enumerate(radius):
        for attempt in range(60):
            if crowded and k % 2 and attempt < 20:
                turn = rng.uniform(0, 2 * np.pi)
                step = (
                    rng.uniform(0.7, 0.95)
                    * (r + radius[k - 1])
                    * np.array([np.sin(turn), np.cos(turn)])
                )
                at = found[-1] + step
                others = np.array(found[:-1]).reshape(-1, 2)
            else:
                at = rng.uniform(0, size, 2)
                others = np.array(found).reshape(-1, 2)
            reach = radius[: len(others)] + r + 4
            if (np.hypot(*(others - at).T) > reach).all() and (at >= 0).all() and (at < size).all():
                break
        found.append(at)
    return np.array(found)


def positions(tiles: int, times: int, size: int) -> Iterator[tuple[str, int, int, Position]]:
    """Well, tile and seed of every position; every second well is crowded."""
    per_well = 4
    for k in range(tiles):
        well = f"{'ABCDEFGH'[k // per_well // 6]}{k // per_well % 6 + 1}"
        crowded = k // per_well % 2 == 1
        yield well, k % per_well + 1, k, Position.random(k, size, times, crowded=crowded)


def write(folder: Path, *, tiles: int, times: int, size: int) -> Path:
    """The images (TIFF, not compressed), their truth below truth/, and plate.csv."""
    (folder / "truth").mkdir(parents=True)
    rows = []
    for well, tile, seed, position in positions(tiles, times, size):
        for time in range(times):
            image, labels = position.draw(time, seed)
            name = f"{well}_T{time}_{tile}.tif"
            tifffile.imwrite(folder / name, image)
            tifffile.imwrite(folder / "truth" / name, labels.astype(np.uint16))
            rows.append({"well": well, "timepoint": time, "tile": tile, "channel": "cells",
                         "file": name})  # fmt: skip
    return write_rows(folder / "plate.csv", rows)
