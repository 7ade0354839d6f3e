"""What `register` will do, need and cost, before anything is done.

The rates were measured on one core of a 2.4 GHz server; they are for orders of magnitude.
"""

from __future__ import annotations

import math

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines import estimate
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.pipelines.register_dense import DenseEngine
from warpbeam.transforms.canvas import OutputSettings, canvas_on, volume_spec
from warpbeam.transforms.register.frame import FIXED, MOVING, Frame
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.volume_spec import VolumeSpec

# JAX beside what every worker loads.
_JAX_MEMORY = 250_000_000
_REDUCE_VOXELS_PER_S = 40e6
_MATCH_VOXELS_PER_S = 6e6
_PATCHES_PER_S = 400
_NODES_PER_S = 40e3
_RENDER_VOXELS_PER_S = 15e6
_BYTES_PER_NODE = 1200  # 900 measured, and more where cells fold
_FFT_MEMORY = 600_000_000  # of the scan: a copy of 64 voxels a side, and a turned one
_FACTOR_MEMORY = 350_000_000  # of the coarsest level of the solver
_BYTES_PER_VOXEL = 40  # of a chunk with its surroundings


def plan(
    run: RunFolder,
    frame: Frame,
    tiles: TileList,
    output: OutputSettings,
    *,
    direct: bool,
    tiff: bool,
    dense: DenseEngine | None,
) -> Plan:
    """The plan of a `register` job; `direct`: both files can be read in parts."""
    spec, size = nominal_spec(run, frame, output), estimate.itemsize(tiles)
    voxels = [math.prod(shape) for shape in frame.shapes]
    nodes, shard = math.prod(frame.lattice.shape), math.prod(spec.shard)
    reduced = 12 * frame.reduced_block**3
    stages = [
        estimate.convert(tiles, needed=not direct),
        StagePlan(
            "reduce", sum(math.prod(-(-n // frame.reduced_block) for n in s)
                          for s in frame.shapes),
            sum(voxels) * size, sum(voxels) // 2, reduced, sum(voxels) / _REDUCE_VOXELS_PER_S,
        ),
        StagePlan("coarse", 1, 0, 0, _JAX_MEMORY + _FFT_MEMORY, 5.0),
        *(_matching(frame, number) for number in (*range(len(frame.passes)), frame.last + 1)),
        StagePlan(
            "solve", len(frame.passes), 40 * nodes, 12 * nodes,
            _JAX_MEMORY + _FACTOR_MEMORY + _BYTES_PER_NODE * nodes,
            len(frame.passes) * nodes / _NODES_PER_S,
        ),
        *([_dense(frame, dense)] if dense else []),
        StagePlan(
            "render", spec.levels[0].shards,
            voxels[MOVING] * size, voxels[FIXED] * size * 4 // 3, round(shard * size * 6 + 60e6),
            voxels[FIXED] * len(tiles.channels) / _RENDER_VOXELS_PER_S,
        ),
        *([estimate.tiff(spec, size)] if tiff else []),
        estimate.pyramid(spec, size),
    ]  # fmt: skip
    what = (
        f"voxels of {_voxel(frame.voxels[FIXED])} (fixed) and {_voxel(frame.voxels[MOVING])} "
        "(moving), zyx, um where the files or volumes.fixed_voxel_um say so",
        f"fixed {_words(frame.shapes[FIXED])}, moving "
        f"{_words(frame.shapes[MOVING])}, {output.dtype}, "
        f"{len(tiles.channels)} channels",
        f"{len(frame.blocks)} chunks, {nodes} nodes",
        f"-> {run.volume}: {_words(spec.shape)} (tczyx), {len(spec.levels)} levels, "
        f"shards {_words(spec.shard)}",
    )
    return Plan(tuple(stages), estimate.BASE_MEMORY, what)


def _matching(frame: Frame, number: int) -> StagePlan:
    """One look at all chunks."""
    given, first = frame.given(number), Box.of_shape(frame.blocks.block)
    region, count = frame.area(number, first).region.size, len(frame.blocks)
    seconds = count * region / _MATCH_VOXELS_PER_S
    if given.search is not None:
        seconds += math.prod(frame.lattice.shape) / given.every**3 / _PATCHES_PER_S
    name = "quality" if number > frame.last else f"match_{number}"
    return StagePlan(
        name, count, 8 * count * region, 40 * math.prod(frame.lattice.shape),
        _JAX_MEMORY + _BYTES_PER_VOXEL * region, seconds,
    )  # fmt: skip


def _dense(frame: Frame, dense: DenseEngine) -> StagePlan:
    """The engine on all chunks."""
    region = max(frame.overlapping(b, 1)[1].size for b in frame.blocks.indices())
    count = len(frame.blocks)
    return StagePlan(
        "dense", count, 8 * count * region, 0, dense.bytes_per_voxel * region,
        count * region / dense.voxels_per_s,
    )  # fmt: skip


def nominal_spec(run: RunFolder, frame: Frame, output: OutputSettings) -> VolumeSpec:
    """The volume that will be written."""
    whole = Box.of_shape(frame.shapes[FIXED])
    return volume_spec(canvas_on(whole, output, run.format), output, run)


def _voxel(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
