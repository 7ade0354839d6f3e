"""Joining the labels of blocks: time and rounds of the graph of ids.

    python tests/benchmarks/label_graph.py --json

The graph has the given number of edges: objects that go through tens of blocks each, in no order,
as the blocks of a volume would report them. It is joined at once, and as forests of parts that
are merged, which must give the same. A path that visits many blocks in a random order, the worst
there is, is joined region by region, as graphs are that no worker can hold: the rounds are the
levels of regions, up and down.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent)]

import conftest  # noqa: F401
import numpy as np

from warpbeam.kernels.segment.pieces import Pieces, block_pieces, merge_pieces
from warpbeam.kernels.segment.traits import Traits
from warpbeam.kernels.segment.union import forest, merge

LENGTH = 20


def graph(edges: int, seed: int) -> np.ndarray:
    """Chains of `LENGTH` ids, each in another block, with an edge in ten that closes a loop."""
    rng = np.random.default_rng(seed)
    chains = edges // LENGTH + 1
    block = rng.integers(1, 1 << 20, (chains, LENGTH)).astype(np.uint64)
    local = np.arange(chains * LENGTH, dtype=np.uint64).reshape(chains, LENGTH)
    ids = (block << np.uint64(32)) | local
    steps = np.stack([ids[:, :-1], ids[:, 1:]], axis=-1).reshape(-1, 2)
    loops = np.stack([ids[:, 0], ids[:, -1]], axis=-1)
    return rng.permutation(np.concatenate([steps, loops]))[:edges]


def path_by_regions(blocks: int, fan_out: int, leaf: int) -> tuple[bool, int, float]:
    """Whether a path through that many blocks is one object, the levels, and CPU seconds.

    `leaf`: blocks whose edges the first level takes at once, as the job does.
    """
    ids = np.arange(blocks, dtype=np.uint64) << np.uint64(32) | np.uint64(1)
    path = np.random.default_rng(1).permutation(ids)
    edges = np.stack([path[:-1], path[1:]], axis=1)
    began = time.process_time()
    region = (edges >> np.uint64(32)).astype(np.int64) // leaf
    first = np.argsort(region[:, 0], kind="stable")
    second = np.argsort(region[:, 1], kind="stable")
    parts: list[Pieces] = []
    for k, mine in enumerate(np.array_split(ids, range(leaf, blocks, leaf))):
        found = [
            edges[order][slice(*np.searchsorted(region[order, side], [k, k + 1]))]
            for side, order in enumerate((first, second))
        ]
        one = np.ones(len(mine), np.int64)
        box = np.zeros((len(mine), 3), np.int64)
        leaves = block_pieces(mine, Traits(one, box, box, box), np.concatenate(found))
        parts.append(merge_pieces([leaves]).open)
    levels = 1
    while len(parts) > 1:
        levels += 1
        groups = [parts[k : k + fan_out] for k in range(0, len(parts), fan_out)]
        last = len(groups) == 1
        merged = [merge_pieces(group) for group in groups]
        parts = [m.finished if last else m.open for m in merged]
    whole = parts[0].ids.tolist() == [1] and parts[0].traits.voxels.tolist() == [blocks]
    return whole, levels, time.process_time() - began


def run(edges: int, blocks: int) -> dict[str, Any]:
    found = graph(edges, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    whole = forest(found)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    began = time.process_time()
    merged = merge([forest(part) for part in np.array_split(found, 8)])
    in_parts = time.process_time() - began
    whole_path, levels, path_s = path_by_regions(blocks, 8, 64)
    return {
        "edges": edges,
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "cpu_s_in_8_parts": round(in_parts, 2),
        "same_in_parts": bool(np.array_equal(whole, merged)),
        "path_blocks": blocks,
        "path_rounds": 2 * levels,
        "rounds_allowed": round(2 * float(np.log2(blocks)), 1),
        "path_is_one_object": whole_path,
        "path_cpu_s": round(path_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments.edges, arguments.blocks)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
