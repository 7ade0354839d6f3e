"""The flow on an accelerator: patches per second, the part of them that the device's own limits
would allow, and how far its vectors are from a CPU's.

    python tests/benchmarks/accelerator.py --json

The same images are measured by a second process on the CPU. The limit is the time of what cannot
be left out: the Fourier transforms of the correlation, and one reading of both images in every
deformation step at the bandwidth of a copy. Host threads share the device as a worker's units do.
Times are wall times, after a first call that compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import conftest  # noqa: F401
import cv2
import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, ndimage

from warpbeam.kernels.flow.field import Flow, FlowSettings, flow
from warpbeam.kernels.flow.match import batch_size
from warpbeam.transforms.process import set_up_jax

# side of the images; patch, stride and search; steps of the finest level
CASES = {
    "2-D:160/40": ((4096, 4096), FlowSettings((160,) * 2, (40,) * 2, (40,) * 2)),
    "2-D:80/20": ((2048, 2048), FlowSettings((80,) * 2, (20,) * 2, (30,) * 2)),
    "3-D:32/16": ((96, 192, 192), FlowSettings((32,) * 3, (16,) * 3, (8,) * 3)),
}
_TRANSFORMS = 6  # forward, and as many back: see kernels.flow.correlation


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Texture, and the same bent by a few voxels, with noise."""
    rng = np.random.default_rng(0)
    fixed = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 1.5)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    bend = [3 * np.sin(grid[a - 1] / 150 + a) + 2.3 for a in range(len(shape))]
    if len(shape) == 2:
        at = [(g + b).astype(np.float32) for g, b in zip(grid, bend, strict=True)]
        moving = cv2.remap(fixed, at[1], at[0], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    else:
        moving = ndimage.map_coordinates(fixed, grid + np.stack(bend), order=1, mode="nearest")
    noise = 0.2 * fixed.std()
    return fixed, (moving + rng.normal(0, noise, shape)).astype(np.float32)


def shrunk(shape: tuple[int, ...], least: int, part: float) -> tuple[int, ...]:
    return tuple(max(round(n * part), least) for n in shape)


def median_s(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def limit_s(shape: tuple[int, ...], settings: FlowSettings, nodes: int, repeats: int) -> float:
    """What the device needs for the transforms alone, and to read the images once per step."""
    level = settings.coarse_level
    window = [
        round(p / level) + 2 * -(-s // level)
        for p, s in zip(settings.patch, settings.search, strict=True)
    ]
    sides = [fft.next_fast_len(n, real=a == len(window) - 1) for a, n in enumerate(window)]
    count = min(batch_size(window), nodes)
    axes = tuple(range(1, len(sides) + 1))
    there = jax.jit(lambda x: jnp.fft.rfftn(x, axes=axes))
    back = jax.jit(lambda x: jnp.fft.irfftn(x, sides, axes=axes))
    images = jax.random.normal(jax.random.key(0), (count, *sides))
    spectra = there(images)
    one = median_s(lambda: there(images).block_until_ready(), repeats)
    one += median_s(lambda: back(spectra).block_until_ready(), repeats)
    transforms = _TRANSFORMS * one * nodes / count
    read = 0.0
    while level >= settings.finest:
        steps = settings.steps + (level > settings.finest)
        read += steps * 2 * 4 * np.prod(shape) / level ** len(shape)
        level //= 2
    return transforms + read / bandwidth(repeats)


def bandwidth(repeats: int) -> float:
    """Bytes per second, read and written, of a large copy."""
    cells = 1 << (28 if jax.default_backend() != "cpu" else 24)
    array = jnp.ones(cells, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return 8 * cells / median_s(lambda: copy(array).block_until_ready(), repeats)


def measured(name: str, part: float, repeats: int, threads: list[int]) -> dict[str, Any]:
    shape, settings = CASES[name]
    shape = shrunk(shape, 2 * max(settings.patch), part)
    images = pair(shape)

    def work(_: int = 0) -> Flow:
        return flow(*images, settings)

    def together(pool: ThreadPoolExecutor, count: int) -> list[Flow]:
        return list(pool.map(work, range(2 * count)))

    found = work()
    nodes = found.ncc.size
    alone = median_s(work, repeats)
    rates = {"1": nodes / alone}
    for count in threads:
        with ThreadPoolExecutor(count) as pool:
            each = median_s(partial(together, pool, count), repeats)
        rates[str(count)] = 2 * count * nodes / each
    limit = limit_s(shape, settings, nodes, repeats)
    return {
        "shape": shape,
        "patches": nodes,
        "patches_per_s_by_threads": {k: round(v) for k, v in rates.items()},
        "of_limit": round(float(limit * max(rates.values()) / nodes), 3),
        "limit_patches_per_s": round(nodes / limit),
        "mpx_per_s": round(max(rates.values()) / nodes * float(np.prod(shape)) / 1e6, 1),
        "known": round(float(np.isfinite(found.ncc).mean()), 3),
        "vectors": found.vectors,
    }


def on_cpu(cases: list[str], part: float, target: Path) -> None:
    """The vectors of the cases, written by a process that sees no accelerator."""
    subprocess.run(
        [sys.executable, __file__, "--part", str(part), "--vectors", str(target),
         "--cases", *cases],
        env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=True,
    )  # fmt: skip


def write_vectors(cases: list[str], part: float, target: Path) -> None:
    found = {}
    for name in cases:
        shape, settings = CASES[name]
        small = shrunk(shape, 2 * max(settings.patch), part)
        found[name] = flow(*pair(small), settings).vectors
    np.savez(target, **found)


def apart(here: np.ndarray, there: np.ndarray) -> dict[str, float]:
    both = np.isfinite(here) & np.isfinite(there)
    gap = np.abs(here - there)[both]
    return {
        "median_px": float(f"{np.median(gap):.2g}"),
        "max_px": float(f"{gap.max():.2g}"),
        "known_by_one_alone": int((np.isfinite(here) != np.isfinite(there)).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--part", type=float, default=1.0, help="of the sides of the images")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--vectors", type=Path, help="write the vectors alone, for a comparison")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    set_up_jax()
    if arguments.vectors:
        write_vectors(arguments.cases, arguments.part, arguments.vectors)
        return
    result: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "copy_gb_per_s": round(bandwidth(arguments.repeats) / 1e9, 1),
    }
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "vectors.npz"
        on_cpu(arguments.cases, arguments.part, target)
        reference = dict(np.load(target))
    for name in arguments.cases:
        case = measured(name, arguments.part, arguments.repeats, arguments.threads)
        vectors = case.pop("vectors")
        result[name] = {**case, "from_cpu": apart(vectors, reference[name])}
        print(name, result[name], file=sys.stderr, flush=True)
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
