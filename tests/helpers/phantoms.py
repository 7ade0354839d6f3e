"""Small mosaics whose truth is known at every real coordinate.

The truth is a sum of plane waves, so that a tile under any affine map is sampled exactly:
no resampling error stands between a test and what it measures.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

Writer = Callable[..., None]


@dataclass(frozen=True)
class Waves:
    """`mean + sum of amplitude * cos(k . p + phase)`; p in voxels, zyx or yx."""

    vectors: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray
    mean: float = 1000.0

    @classmethod
    def random(
        cls,
        seed: int,
        ndim: int = 2,
        *,
        wavelengths: tuple[float, float] = (12.0, 80.0),
        count: int = 40,
        spread: float = 200.0,
    ) -> Waves:
        """Waves in all directions; `spread` is the standard deviation of the values."""
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((count, ndim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = np.exp(rng.uniform(*np.log(wavelengths), count))
        amplitudes = np.full(count, spread * np.sqrt(2 / count))
        phases = rng.uniform(0, 2 * np.pi, count)
        return cls(2 * np.pi * directions / lengths[:, None], phases, amplitudes)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at points `(..., d)`."""
        angles = points @ self.vectors.T + self.phases
        return self.mean + np.cos(angles) @ self.amplitudes

    def image(self, shape: Sequence[int], matrix: np.ndarray | None = None) -> np.ndarray:
        """The image whose voxel p shows the truth at `matrix @ p` (homogeneous)."""
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)
        if matrix is not None:
            d = len(shape)
            mapped = grid @ matrix[:d, :d].T + matrix[:d, d]
            grid = mapped / (grid @ matrix[d, :d] + matrix[d, d])[..., None]
        return self.at(grid)


def shifted(*offset: float) -> np.ndarray:
    """The homogeneous matrix of a translation."""
    matrix = np.eye(len(offset) + 1)
    matrix[:-1, -1] = offset
    return matrix


def to_uint16(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16)


def grid_positions(rows: int, columns: int, step: float) -> list[tuple[float, float]]:
    return [(r * step, c * step) for r in range(rows) for c in range(columns)]


def write_tiff(path: Path, image: np.ndarray, **options: Any) -> None:
    """Deflate in strips, as microscopes write; a photometric hint keeps small stacks grey."""
    settings: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    if image.ndim == 2:
        settings["rowsperstrip"] = 16
    else:
        settings |= {"metadata": {"axes": "ZYX"}}
    tifffile.imwrite(path, image, **(settings | options))


def write_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A tile list as CSV."""
    rows = list(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def matrix_columns(matrix: np.ndarray) -> dict[str, float]:
    """A matrix as the columns m00 … of a tile list, without a trivial last row."""
    rows = matrix if not np.array_equal(matrix[-1], np.eye(len(matrix))[-1]) else matrix[:-1]
    return {f"m{i}{j}": v for i, row in enumerate(rows.tolist()) for j, v in enumerate(row)}


def write_mosaic(
    folder: Path,
    *,
    rows: int = 3,
    columns: int = 3,
    tile: int = 96,
    step: float = 80,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Tiles of one truth on a regular grid with whole-pixel steps; returns their list."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = Waves.random(seed)
    listed = []
    for y, x in grid_positions(rows, columns, step):
        name = f"t_{round(y)}_{round(x)}.tif"
        write_tiff(folder / name, to_uint16(truth.image((tile, tile), shifted(y, x))), **options)
        listed.append({"file": name, "y": y, "x": x})
    return write_list(folder / "tiles.csv", listed)


def damage(path: Path, *, at: float = 0.6, count: int = 64) -> bytes:
    """Overwrites bytes inside the pixel data, keeping header and size; returns the file before."""
    before = path.read_bytes()
    start = int(len(before) * at)
    path.write_bytes(before[:start] + b"\xff" * count + before[start + count :])
    return before
