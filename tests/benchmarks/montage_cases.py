"""Mosaics with known truth, for measuring how well tiles are placed.

Tiles are cut from one canvas at sub-pixel positions by order-5 B-splines (no resampling
error that matters at 0.01 px), some overlaps are flattened to plain grey, and each tile
gets its own gain, a vignette and noise. Positions are float64 (y, x) in canvas pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import fft, ndimage
from scipy.interpolate import BSpline

SPLINE_ORDER = 5
MARGIN_PX = 24


@dataclass(frozen=True)
class Difficulty:
    """What is done to the tiles; noise and gain in 8-bit grey levels and fractions."""

    noise: float
    vignette: float
    gain: float
    blank: float
    jitter_px: float = 8.0


DIFFICULTIES = {
    "easy": Difficulty(noise=5, vignette=0.2, gain=0, blank=0),
    "real": Difficulty(noise=12, vignette=0.3, gain=0.05, blank=0.2),
    "hard": Difficulty(noise=30, vignette=0.5, gain=0.05, blank=0.28),
    "sparse": Difficulty(noise=4, vignette=0.2, gain=0.05, blank=0),
}


@dataclass(frozen=True)
class Case:
    """Tiles `(n, y, x)` uint8, where they are, where the stage says, and what can be known.

    `content[link]` is the share of the true overlap that was not blanked.
    """

    tiles: np.ndarray
    truth: np.ndarray
    nominal: np.ndarray
    links: list[tuple[int, int]]
    content: np.ndarray

    @property
    def blank(self) -> np.ndarray:
        return self.content < 0.02

    @property
    def informative(self) -> np.ndarray:
        return self.content > 0.5


def spectrum_noise(
    side: int, seed: int, response: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Gaussian noise of unit variance whose amplitude spectrum is `response(cycles per px)`."""
    rng = np.random.default_rng(seed)
    white = fft.rfft2(rng.standard_normal((side, side), np.float32))
    radius = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None]).astype(np.float32)
    field = fft.irfft2(white * response(radius).astype(np.float32), (side, side))
    return field / field.std()


def band(wavelength_px: float, width: float = 0.25) -> Callable[[np.ndarray], np.ndarray]:
    """A log-normal pass band around one wavelength."""
    return lambda f: np.exp(-0.5 * (np.log(np.maximum(f, 1e-6) * wavelength_px) / width) ** 2)


def em_canvas(side: int, seed: int) -> np.ndarray:
    """Looks like ssTEM: dark closed membranes, darker bodies, grainy cytoplasm; 0..255 float32."""
    cells = spectrum_noise(side, seed, band(70, 0.5))
    organelles = spectrum_noise(side, seed + 1, band(28))
    grain = spectrum_noise(side, seed + 2, lambda f: np.exp(-((f / 0.12) ** 2)))
    slow = spectrum_noise(side, seed + 3, band(400, 0.5))
    membranes = np.exp(-((cells / 0.2) ** 2))
    bodies = ndimage.gaussian_filter((organelles > 1.6).astype(np.float32), 1.2)
    grey = 165 - 95 * membranes - 50 * bodies + 14 * grain + 8 * slow
    return np.clip(grey, 5, 250).astype(np.float32)


def sparse_canvas(side: int, seed: int, spots_per_mpx: float = 1000) -> np.ndarray:
    """Looks like sparse fluorescence: spots of all brightnesses and some fibres on a dark field."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side), np.float32)
    for sigma in (1.3, 1.8, 2.6, 4.0):
        layer = np.zeros_like(image)
        count = rng.poisson(spots_per_mpx * side * side / 4e6)
        at = rng.uniform(0, side - 1, (count, 2)).astype(int)
        peak = np.minimum(12 * rng.pareto(1.3, count) + 6, 220)
        np.add.at(layer, (at[:, 0], at[:, 1]), peak * 2 * np.pi * sigma**2)
        image += cv2.GaussianBlur(layer, (0, 0), sigma)
    fibres = np.exp(-((spectrum_noise(side, seed + 5, band(120, 0.3)) / 0.03) ** 2))
    where = np.clip(spectrum_noise(side, seed + 6, band(500, 0.3)) - 1.0, 0, 1)
    image += cv2.GaussianBlur((35 * fibres * where).astype(np.float32), (0, 0), 1.2)
    return np.clip(18 + image, 0, 250)


def file_canvas(path: Path, side: int) -> np.ndarray:
    """The images of a file or folder, each mirrored and laid side by side; 0..255 float32."""
    names = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    read = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in names]
    images = [image for image in read if image is not None]
    if not images:
        raise ValueError(f"no readable image in {path}")
    size = min(min(image.shape) for image in images)
    cells = -(-side // size)
    rows = []
    for r in range(cells):
        row = []
        for c in range(cells):
            image = images[(r // 2 * 3 + c // 2) % len(images)][:size, :size]
            row.append(image[:: -1 if r % 2 else 1, :: -1 if c % 2 else 1])
        rows.append(np.hstack(row))
    return np.vstack(rows)[:side, :side].astype(np.float32)


def canvas_of(name: str, side: int, seed: int) -> np.ndarray:
    """`em`, `sparse`, or a path to an image or a folder of images."""
    makers = {"em": em_canvas, "sparse": sparse_canvas}
    return makers[name](side, seed) if name in makers else file_canvas(Path(name), side)


def cut(coefficients: np.ndarray, at: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The spline with these coefficients, sampled on a grid of `shape` that starts at `at`."""
    whole = np.floor(at).astype(int)
    half = SPLINE_ORDER // 2 + 1
    window = tuple(slice(w - half, w + n + half) for w, n in zip(whole, shape, strict=True))
    tile = coefficients[window].astype(np.float64)
    basis = BSpline.basis_element(np.arange(SPLINE_ORDER + 2) - (SPLINE_ORDER + 1) / 2, False)
    for axis in range(2):
        weights = np.nan_to_num(basis(np.arange(-half, half + 1) - (at[axis] - whole[axis])))
        tile = ndimage.correlate1d(tile, weights, axis=axis)
    return tile[half:-half, half:-half]


def grid_links(grid: int) -> list[tuple[int, int]]:
    """Neighbours below and to the right, tiles numbered row by row."""
    at = [(r, c) for r in range(grid) for c in range(grid)]
    below = [(r * grid + c, r * grid + c + grid) for r, c in at if r + 1 < grid]
    right = [(r * grid + c, r * grid + c + 1) for r, c in at if c + 1 < grid]
    return sorted(below + right)


def choose_blank(grid: int, share: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Links to blank: all of one inner tile (an island), then others at random."""
    links = grid_links(grid)
    if not share:
        return []
    island = (grid // 2 - 1) * grid + grid // 2
    chosen = [link for link in links if island in link]
    rest = [link for link in links if island not in link]
    more = max(0, round(share * len(links)) - len(chosen))
    return chosen + [rest[i] for i in rng.choice(len(rest), more, replace=False)]


def vignette(shape: tuple[int, int], depth: float) -> np.ndarray:
    """1 in the centre, `1 - depth` in the corners, quadratic in between."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return 1 - depth * (y[:, None] ** 2 + x[None] ** 2) / 2


def make_case(
    difficulty: Difficulty, canvas: str = "em", grid: int = 8, tile: int = 512, seed: int = 0
) -> Case:
    """Cuts a `grid` x `grid` mosaic of `tile`² tiles with 10 % overlap from a canvas."""
    rng = np.random.default_rng(seed)
    step = tile - round(0.1 * tile)
    side = (grid - 1) * step + tile + 2 * MARGIN_PX
    image = canvas_of(canvas, side, seed)
    nominal = np.array([(r * step, c * step) for r in range(grid) for c in range(grid)], float)
    nominal += MARGIN_PX
    truth = nominal + rng.uniform(-1, 1, nominal.shape) * difficulty.jitter_px
    flat = np.zeros(image.shape, bool)
    pad = int(2 * difficulty.jitter_px) + 4
    for a, b in choose_blank(grid, difficulty.blank, rng):
        start = np.maximum(nominal[a], nominal[b]).astype(int) - pad
        stop = np.minimum(nominal[a], nominal[b]).astype(int) + tile + pad
        start = np.maximum(start, 0)
        flat[start[0] : stop[0], start[1] : stop[1]] = True
    image = np.where(flat, np.float32(np.median(image)), image)
    coefficients = ndimage.spline_filter(image, SPLINE_ORDER, np.float32)
    shade = vignette((tile, tile), difficulty.vignette)
    tiles = np.empty((len(truth), tile, tile), np.uint8)
    for i, at in enumerate(truth):
        signal = cut(coefficients, at, (tile, tile)) * shade
        signal *= 1 + difficulty.gain * rng.uniform(-1, 1)
        noisy = signal + difficulty.noise * rng.standard_normal((tile, tile))
        tiles[i] = np.clip(np.rint(noisy), 0, 255)
    links = grid_links(grid)
    content = np.empty(len(links))
    for k, (a, b) in enumerate(links):
        start = np.ceil(np.maximum(truth[a], truth[b])).astype(int)
        stop = np.floor(np.minimum(truth[a], truth[b])).astype(int) + tile
        content[k] = 1 - flat[start[0] : stop[0], start[1] : stop[1]].mean()
    return Case(tiles, truth, nominal - MARGIN_PX, links, content)
