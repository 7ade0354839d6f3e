"""How fast maps are composed and inverted, and images drawn through them.

    python tests/benchmarks/maps_speed.py --json

CPU seconds of one thread, the best of three runs. Errors are against `map_coordinates` in float64
on the same positions (SOFIMA's figures: 2.4-3.5 s to invert 125² nodes, 4.3-5.8 Mpx/s linear,
5.5-6.7 Mpx/s Lanczos).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.warp.image import warp_image
from warpbeam.kernels.warp.labels import warp_labels
from warpbeam.kernels.warp.source import Source

ORDER = {"nearest": 0, "linear": 1, "cubic": 3, "lanczos": 3}


def cpu_seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def smooth_map(
    rng: np.random.Generator, nodes: tuple[int, ...], stride: float, rms: float
) -> CoordinateMap:
    """Noise blurred over four nodes, of a given rms in voxels."""
    parts = [ndimage.gaussian_filter(rng.normal(size=nodes), 4) for _ in nodes]
    u = np.stack([part * rms / part.std() for part in parts])
    return CoordinateMap(u, (0.0,) * len(nodes), (stride,) * len(nodes))


def algebra(rng: np.random.Generator, nodes: tuple[int, ...], stride: float) -> dict[str, float]:
    m = smooth_map(rng, nodes, stride, stride / 5)
    back = invert(m)
    residual = compose(m, back).u
    gaps = m.u.copy()
    gaps[:, rng.random(nodes) < 0.3] = np.nan
    return {
        "invert_s": cpu_seconds(lambda: invert(m)),
        "compose_s": cpu_seconds(lambda: compose(m, m)),
        "fill_30_percent_s": cpu_seconds(lambda: fill_missing(m.with_offsets(gaps))),
        "round_trip_rms_px": float(np.sqrt(np.nanmean(residual**2))),
        "round_trip_at_nodes_max_px": float(np.nanmax(np.abs(compose(back, m).u))),
    }


def drawing(rng: np.random.Generator, side: int, stride: float) -> dict[str, float]:
    """Rates in Mpx/s, the upsampling of the map included."""
    m = smooth_map(rng, (round(side / stride) + 1,) * 2, stride, 8.0)
    image = ndimage.gaussian_filter(rng.normal(size=(side, side)), 1.5)
    image = ((image - image.min()) / np.ptp(image) * 255).astype(np.float32)
    box = Box.of_shape((side, side))
    grid = np.mgrid[:side, :side]
    where = grid + [
        ndimage.map_coordinates(part, grid / stride, order=1, mode="nearest") for part in m.u
    ]
    last_node = (m.lattice.shape[0] - 1) * stride
    inside = ((where >= 0) & (where <= side - 1) & (grid <= last_node)).all(axis=0)
    numbers = {}
    for name, order in ORDER.items():
        for pixels in (image, image.astype(np.uint8)):
            seconds = cpu_seconds(lambda: warp_image(Source.whole(pixels), m, box, name))  # noqa: B023
            numbers[f"{name}_{pixels.dtype}_mpx_per_s"] = side**2 / seconds / 1e6
        truth = ndimage.map_coordinates(image.astype(float), where, order=order, mode="nearest")
        error = (warp_image(Source.whole(image), m, box, name) - truth)[inside]
        numbers[f"{name}_rms_grey"] = float(np.sqrt(np.mean(error**2)))
    labels = rng.integers(0, 2**64, (side, side), dtype=np.uint64)
    seconds = cpu_seconds(lambda: warp_labels(Source.whole(labels), m, box))
    numbers["labels_uint64_mpx_per_s"] = side**2 / seconds / 1e6
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="of the image, in pixels")
    parser.add_argument("--stride", type=float, default=40.0, help="of the map drawn through")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(options.seed)
    numbers = {
        "125x125": algebra(rng, (125, 125), 40.0),
        "40x40x40": algebra(rng, (40, 40, 40), 20.0),
        "drawing": drawing(rng, options.side, options.stride),
    }
    if options.json:
        print(json.dumps(numbers))
        return
    for part, rows in numbers.items():
        print(part)
        print("\n".join(f"{name:>28} {value:.4g}" for name, value in rows.items()))


if __name__ == "__main__":
    main()
