"""How long meshes take: Gauss-Newton against FIRE, large meshes, and a chain of sections.

    python tests/benchmarks/mesh_speed.py --nodes 250 --fire
    python tests/benchmarks/mesh_speed.py --nodes 2000 --missing 0.3 --bending 300
    python tests/benchmarks/mesh_speed.py --chain 100 --nodes 51
    python tests/benchmarks/mesh_speed.py --nodes 25 --sofima PATH   (a checkout of SOFIMA)

All on one thread, CPU seconds of the process. SOFIMA runs with the force cap of its section
alignment; above 60 nodes its steps are timed over 200 of them and multiplied by the 73 000 that it
takes for 12 nodes here. Needs absl-py and dataclasses-json, which SOFIMA imports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401
import numpy as np
from peak_memory import peak_mb

from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.mesh.chain import ChainSettings, Status, solve_chain
from warpbeam.kernels.mesh.energy import Elasticity, MeshEnergy
from warpbeam.kernels.mesh.fire import FireSettings, relax_fire
from warpbeam.kernels.mesh.gauss_newton import relax

STRIDE = (40.0, 40.0)
SOFIMA_STEPS = 73_000


def field(nodes: int, missing: float, seed: int = 0) -> np.ndarray:
    """Smooth offsets with half a pixel of noise, some of them missing, and a hole if any is."""
    rng = np.random.default_rng(seed)
    y, x = 40.0 * np.mgrid[:nodes, :nodes]
    wave = max(1024.0, 40.0 * nodes)
    smooth = [
        9.6 + 8 * np.sin(2 * np.pi * x / wave + 1) * np.cos(2 * np.pi * y / wave),
        -7.2 + 8 * np.cos(2 * np.pi * (x + y) / wave),
    ]
    target = np.stack(smooth) + rng.normal(0, 0.5, (2, nodes, nodes))
    target[:, rng.random((nodes, nodes)) < missing] = np.nan
    if missing:
        target[:, nodes // 4 : nodes // 2, nodes // 4 : nodes // 2] = np.nan
    return target


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def minimum(options: argparse.Namespace) -> dict[str, float]:
    target = field(options.nodes, options.missing)
    elasticity = Elasticity(STRIDE, options.spring, options.bending)
    weight = np.full(target.shape[1:], options.weight)
    found, seconds = timed(lambda: relax(target, elasticity, weight=weight))
    numbers = {
        "nodes": target[0].size,
        "cpu_s": seconds,
        "steps": found.steps,
        "cg_steps": found.inner_steps,
        "energy": found.energy,
        "memory_peak_mb": peak_mb(),
    }
    if options.fire:
        settings = FireSettings()
        relax_fire(target, elasticity, settings, weight=weight)  # compiles
        fire, slow = timed(lambda: relax_fire(target, elasticity, settings, weight=weight))
        gap = float(np.nanmax(np.abs(fire.offsets - found.offsets)))
        numbers |= {"fire_cpu_s": slow, "fire_steps": fire.steps, "fire_energy": fire.energy}
        numbers |= {"fire_ratio": slow / seconds, "fire_gap_px": gap}
    if options.sofima:
        numbers |= sofima(options, target, weight, elasticity, seconds)
    return numbers


def sofima(
    options: argparse.Namespace,
    target: np.ndarray,
    weight: np.ndarray,
    elasticity: Elasticity,
    seconds: float,
) -> dict[str, float]:
    sys.path.insert(0, options.sofima)
    import mesh as peer

    whole = options.nodes <= 60
    config = peer.IntegrationConfig(
        dt=0.001, gamma=0.0, k0=options.weight, k=options.spring, stride=STRIDE,
        num_iters=1000 if whole else 200, max_iters=100_000 if whole else 200, stop_v_max=0.005,
        dt_max=1000, start_cap=0.01, final_cap=10, prefer_orig_order=True,
    )  # fmt: skip
    wanted = target[::-1, None].astype(np.float32)

    def follow(most: int) -> Any:
        x, _, steps = peer.relax_mesh(
            np.zeros_like(wanted), wanted, _replaced(config, max_iters=most)
        )
        return np.asarray(x), steps

    follow(config.num_iters)  # compiles
    (x, steps), slow = timed(lambda: follow(config.max_iters))
    if not whole:
        slow *= SOFIMA_STEPS / steps
        return {"sofima_cpu_s_extrapolated": slow, "sofima_ratio": slow / seconds}
    energy = MeshEnergy(elasticity, target.shape[1:]).value(
        x[::-1, 0].astype(np.float64), np.nan_to_num(target), weight * np.isfinite(target[0])
    )
    return {
        "sofima_cpu_s": slow,
        "sofima_steps": steps,
        "sofima_energy": energy,
        "sofima_ratio": slow / seconds,
    }


def _replaced(config: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(config, **changes)


def walk(nodes: int, section: int) -> CoordinateMap:
    """A section's own shift and smooth warp of a few px, which differ from its neighbours'."""
    rng = np.random.default_rng(section)
    y, x = 40.0 * np.mgrid[:nodes, :nodes]
    warp = np.zeros((2, nodes, nodes))
    for component, _ in itertools.product(range(2), range(3)):
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        along = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / 900
        warp[component] += rng.normal(0, 2) * np.sin(along + phase)
    warp += rng.normal(0, 4, (2, 1, 1))
    return CoordinateMap(warp, (0.0, 0.0), STRIDE)


def chain(options: argparse.Namespace) -> dict[str, float]:
    """Sections with 15 % missing and 3 % gross outliers, each solved against two references."""
    rng = np.random.default_rng(0)
    steps = {z: walk(options.nodes, z) for z in range(1, options.chain)}
    flows = {(z, z - 1): step for z, step in steps.items()}
    flows |= {(z, z - 2): compose(step, steps[z - 1]) for z, step in steps.items() if z > 1}
    flows = {pair: step.u + rng.normal(0, 0.3, step.u.shape) for pair, step in flows.items()}
    for flow in flows.values():
        grid = flow.shape[1:]
        wrong = rng.random(grid) < 0.03
        flow[:, wrong] += rng.uniform(-40, 40, (2, wrong.sum()))
        flow[:, rng.random(grid) < 0.15] = np.nan
    elasticity = Elasticity(STRIDE, bending_px=options.bending or 150.0)
    found, seconds = timed(
        lambda: solve_chain(range(options.chain), flows, elasticity, ChainSettings())
    )
    regular = sum(section.status == Status.REGULAR for section in found.values())
    return {"sections": len(found), "cpu_s": seconds, "regular": regular}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=250, help="on each axis")
    parser.add_argument("--missing", type=float, default=0.0, help="share of targets")
    parser.add_argument("--spring", type=float, default=0.1)
    parser.add_argument("--bending", type=float, default=0.0, help="px")
    parser.add_argument("--weight", type=float, default=0.01, help="of data springs")
    parser.add_argument("--fire", action="store_true", help="compare with this project's FIRE")
    parser.add_argument("--sofima", metavar="PATH", help="compare with SOFIMA's FIRE")
    parser.add_argument("--chain", type=int, default=0, help="sections, instead of one mesh")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    numbers = chain(options) if options.chain else minimum(options)
    if options.json:
        print(json.dumps(numbers))
    else:
        print("\n".join(f"{name:>26} {value:.12g}" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
