"""What `align` will do, need and cost, before anything is done.

The rates were measured on one core of a 2.4 GHz server; they are for orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines import estimate
from warpbeam.pipelines.align_config import AlignConfig
from warpbeam.pipelines.fusing import coarse_levels as coarse_levels_of
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.transforms.align.frame import MOST_TURNS
from warpbeam.transforms.canvas import OutputSettings, canvas_on, volume_spec
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.volume_spec import VolumeSpec
from warpbeam.transforms.tiles import TileSource

# JAX beside what every worker loads.
_JAX_MEMORY = 250_000_000
_PATCH_VOXELS_PER_S = 40e6
_REDUCE_BYTES_PER_S = 300e6
_NODES_PER_S = 150e3
_RENDER_VOXELS_PER_S = 40e6
# Float images that a measurement holds at once: two pyramids, their smooth versions, products.
_FLOW_IMAGES = 24
# Turns at which whole sections are compared at full size; float images that this holds at once.
_TURNS, _ROUGH_IMAGES = 9, 40
_ROUGH_VOXELS_PER_S = 4e6
_CLEANED_NODES_PER_S = 100e3


def plan(
    run: RunFolder,
    config: AlignConfig,
    tiles: TileList,
    sources: Sequence[TileSource],
    output: OutputSettings,
) -> Plan:
    """The plan of an `align` job, from sections that lie on one another."""
    flow, size = config.flow, estimate.itemsize(tiles)
    spec = nominal_spec(tiles, output, run)
    depth, plane = spec.shape[2], math.prod(spec.shape[3:])
    nodes = math.ceil(spec.shape[3] / flow.stride_px) * math.ceil(spec.shape[4] / flow.stride_px)
    pairs = depth * len(flow.gaps) * len(flow.scales)
    side = flow.block_px + flow.patch_px + 2 * flow.search_px
    block = min(side**2, 1.2 * plane / min(flow.scales) ** 2)
    patches = pairs * nodes * flow.patch_px**2
    blocks = max(math.ceil(plane / (flow.block_px * min(flow.scales)) ** 2), 1)
    read = round(pairs * 2 * plane * size / min(flow.scales) ** 2)
    block_sections = min(config.mesh.block_sections, depth)
    window = math.prod(spec.shard[3:]) * size
    rough = min(config.rough.longest_px, math.sqrt(plane)) ** 2
    turns = 1 if config.rough.model == "translation" else _TURNS
    evened = (
        0 if config.render.contrast == "none" else estimate.EVENED_BYTES * math.prod(spec.shard[3:])
    )
    slow = 2 * config.mesh.drift_sections + 1
    stages = [
        estimate.convert(tiles, needed=not all(s.direct for s in sources)),
        StagePlan(
            "reduce", len(tiles) if max(flow.scales) > 1 else 0, depth * plane * size,
            depth * plane * size // 4, 16 * (1024 * max(flow.scales)) ** 2,
            depth * plane * size / _REDUCE_BYTES_PER_S,
        ),
        StagePlan(
            "rough", depth if config.rough.model != "none" else 0,
            round(depth * rough * size), 0, round(_ROUGH_IMAGES * 4 * rough),
            depth * config.rough.gaps * turns * rough / _ROUGH_VOXELS_PER_S,
        ),
        StagePlan(
            "flow", depth * blocks, read, pairs * nodes * 20,
            round(_JAX_MEMORY + _FLOW_IMAGES * 4 * block), patches / _PATCH_VOXELS_PER_S / 10,
        ),
        StagePlan(
            "clean", depth, pairs * nodes * 20, pairs * nodes * 8, 200 * nodes * len(flow.scales),
            pairs * nodes / _CLEANED_NODES_PER_S,
        ),
        StagePlan(
            "mesh", math.ceil(depth / config.mesh.block_sections), pairs * nodes * 8,
            depth * nodes * 8,
            block_sections * nodes * 16 * (len(flow.gaps) + 2) + 1000 * nodes,
            depth * nodes / _NODES_PER_S * (1 + chain_turns(tiles, config.mesh.block_sections)),
        ),
        StagePlan(
            "settle", math.ceil(depth / 16), depth * nodes * 16, depth * nodes * 24,
            (16 + slow * (1 + 2 * len(config.redone) + (config.mesh.anchor is not None)))
            * nodes * 64, depth * nodes / _NODES_PER_S,
        ),
        StagePlan(
            "render", spec.levels[0].shards,
            depth * plane * size, depth * plane * size * 4 // 3,
            round(math.prod(spec.shard) * size * 3.5 + 4 * window + evened + 60e6),
            depth * plane * len(tiles.channels) / _RENDER_VOXELS_PER_S,
        ),
        estimate.pyramid(spec, size),
    ]  # fmt: skip
    what = (
        f"{len(tiles)} sections of {' x '.join(map(str, tiles.tiles[0].shape))} {tiles.dtype}, "
        f"{len(tiles.channels)} channels",
        f"-> {run.volume}: about {' x '.join(map(str, spec.shape))} (tczyx), "
        f"{len(spec.levels)} levels, shards {' x '.join(map(str, spec.shard))}",
    )
    return Plan(tuple(stages), estimate.BASE_MEMORY, what)


def chain_turns(tiles: TileList, block: int) -> int:
    """How often blocks are solved in one frame: until all are exact, or close to it."""
    sections = tiles.tiles[-1].section - tiles.tiles[0].section + 1
    return min(max(math.ceil(sections / block) - 1, 1), MOST_TURNS)


def nominal_spec(tiles: TileList, output: OutputSettings, run: RunFolder) -> VolumeSpec:
    """The volume as it would be if the sections lay on one another."""
    numbers = [t.section for t in tiles]
    plane = tuple(max(n) for n in zip(*(t.shape for t in tiles), strict=True))
    whole = Box((min(numbers), 0, 0), (max(numbers) + 1, *plane))
    return volume_spec(canvas_on(whole, output, run.format), output, run)


def coarse_levels(tiles: TileList, output: OutputSettings, run: RunFolder) -> range:
    """Levels that the render stage may leave to make."""
    return coarse_levels_of(nominal_spec(tiles, output, run))
