"""Tiles of one truth, each bent in a way of its own, in a plane or in a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from phantoms import Waves, to_uint16, write_list, write_tiff

from warpbeam.kernels.geometry import affine
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage.run_folder import RunFolder

Bend = Callable[[np.ndarray], np.ndarray]
NOISE = 10  # standard deviation, where the truth has 200


def bend_of(seed: int, amplitude: Sequence[float], length: float) -> Bend:
    """One wave per axis, up to `amplitude` voxels, none shorter than `length`."""
    rng = np.random.default_rng(seed)
    rank = len(amplitude)
    k, phase = rng.uniform(-1, 1, (rank, rank)), rng.uniform(0, 2 * np.pi, rank)
    most = np.linalg.norm(k, axis=1).max(initial=1.0)

    def bend(points: np.ndarray) -> np.ndarray:
        return np.array(amplitude) * np.sin(2 * np.pi * points @ k.T / (most * length) + phase)

    return bend


class BentTiles:
    """Tiles on disk, and what each of their points shows.

    Attributes:
        shape: of every tile.
        list: the tile list; it names the nominal places, off by up to `jitter` voxels.
    """

    def __init__(
        self,
        folder: Path,
        truth: Waves,
        shape: tuple[int, ...],
        nominal: Sequence[Sequence[float]],
        bends: Sequence[Bend],
        jitter: Sequence[float],
        **how: Any,
    ) -> None:
        folder.mkdir()
        rng = np.random.default_rng(2)
        self.shape, self._bends, rows = shape, bends, []
        grid = np.stack(np.mgrid[tuple(map(slice, shape))], -1).reshape(-1, len(shape))
        self._places = [np.add(at, rng.uniform(-1, 1, len(shape)) * jitter) for at in nominal]
        for k, at in enumerate(nominal):
            image = truth.at(self.canvas(k, grid.astype(float))).reshape(shape)
            write_tiff(folder / f"t{k}.tif", to_uint16(image + rng.normal(0, NOISE, shape)), **how)
            rows.append({"file": f"t{k}.tif", **dict(zip("zyx"[-len(shape) :], at, strict=True))})
        self.list = write_list(folder / "tiles.csv", rows)

    def canvas(self, tile: int, points: np.ndarray) -> np.ndarray:
        """Where the truth has what a tile's points show."""
        return self._places[tile] + points + self._bends[tile](points)

    def seams(self, run: Path, points: np.ndarray, *, bent: bool) -> np.ndarray:
        """How far apart, in the truth, what two tiles draw at one output point lies, voxels."""
        folder = RunFolder(str(run))
        bends = BendReader(folder)
        shown = []
        for k, placed in enumerate(load_placement(folder)):
            at = affine.apply(np.linalg.inv(affine.homogeneous(placed.matrix)), points)
            bend = bends.of(placed.source.key) if bent else None
            at = at if bend is None else bend.bent(at)
            inside = ((at >= 0) & (at <= np.array(self.shape) - 1)).all(axis=1)
            shown.append(np.where(inside[:, None], self.canvas(k, at), np.nan))
        pairs = [np.linalg.norm(a - b, axis=1) for i, a in enumerate(shown) for b in shown[:i]]
        every = np.concatenate(pairs)
        return every[np.isfinite(every)]
