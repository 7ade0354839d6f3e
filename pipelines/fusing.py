"""The stages that `stitch` and `fuse` share: tiles in, volume out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from warpbeam.pipelines import estimate
from warpbeam.pipelines.config import JobConfig, TilesConfig
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.plan import Plan
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.canvas import LayOut, OutputSettings, frame, load_canvas, volume_spec
from warpbeam.transforms.contrast import ContrastSettings, MeasureRange, list_ranges
from warpbeam.transforms.convert import ConvertTile, usable
from warpbeam.transforms.flatfield import EstimateFlatField, list_channels
from warpbeam.transforms.fuse import FuseSettings, FuseTiles
from warpbeam.transforms.gain import MeasureLevels, SolveGains, list_overlaps, one_gain
from warpbeam.transforms.keys import ShardKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.pyramid import BuildShard, list_shards
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import ngff, store
from warpbeam.transforms.storage.ledger import Key, Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.volume_spec import VolumeSpec
from warpbeam.transforms.tiles import PlacedTile, TileSource, load_sources, sources_of

# With fewer tiles the field is hardly told from their content.
AUTO_FLATFIELD_TILES = 16


def add_convert(
    graph: JobGraph,
    run: RunFolder,
    tiles: TileList,
    sources: Sequence[TileSource],
    *,
    critical: bool = False,
) -> None:
    """Copies the tiles that cannot be read in parts, into a type that holds those of all."""
    largest = tuple(max(column) for column in zip(*(t.shape for t in tiles.tiles), strict=True))
    shape = (len(tiles), len(tiles.channels), *largest)
    work = ConvertTile(run, shape, str(np.result_type(*{t.dtype for t in tiles.tiles})))
    needed = not all(source.direct for source in sources)
    graph.map("convert", None, functools.partial(_unconverted, run), work, needed=needed,
              critical=critical and needed)  # fmt: skip


def _unconverted(run: RunFolder) -> Iterator[Unit]:
    for source in load_sources(run):
        if not source.direct:
            yield source.key, [source.row, source.images, source.version]


def wants_flatfield(config: TilesConfig, tiles: TileList) -> bool:
    """Whether a flat field is estimated: as told, or if there are tiles enough."""
    wanted = config.shading.flatfield
    return wanted == "on" or (wanted == "auto" and len(tiles) >= AUTO_FLATFIELD_TILES)


def add_flatfield(graph: JobGraph, run: RunFolder, config: TilesConfig, tiles: TileList) -> None:
    """Estimates the shading that all tiles share, where that is wanted."""
    if not wants_flatfield(config, tiles):
        return
    channels, converted = len(tiles.channels), graph.ledger("convert")
    listing = functools.partial(list_channels, run, converted, channels)
    automatic = config.shading.flatfield == "auto"
    settings = {"dark": config.shading.dark, "plausible_only": automatic}
    graph.map("flatfield", settings, listing, EstimateFlatField(run, converted, **settings))


def add_gain(graph: JobGraph, run: RunFolder, config: TilesConfig, tiles: TileList) -> None:
    """Matches the brightness of the tiles, where that is wanted."""
    if config.shading.gain == "off":
        return
    channels = len(tiles.channels)
    overlaps = functools.partial(list_overlaps, run, graph.ledger("convert"))
    graph.map("levels", None, overlaps, MeasureLevels(run, channels))
    levels, offsets = graph.ledger("levels"), config.shading.gain == "gain-offset"
    work = SolveGains(run, levels, channels, offsets=offsets)
    graph.map("gain", {"offsets": offsets}, functools.partial(one_gain, levels), work)


def add_contrast(graph: JobGraph, run: RunFolder, config: TilesConfig, tiles: TileList) -> None:
    """Measures in which range contrast is evened out, where that is wanted."""
    if config.shading.contrast == "none":
        return
    converted = graph.ledger("convert")
    ranges = functools.partial(list_ranges, run, converted, len(tiles.channels))
    graph.map("contrast", None, ranges, MeasureRange(run, converted, tiles.dtype), critical=True)


def output_settings(
    config: JobConfig, tiles: TileList, *, flat: bool | None = None
) -> OutputSettings:
    """The volume that a configuration and a tile list ask for.

    `flat` says whether planes are apart from one another; by default they are for 2-D tiles.
    """
    chosen = config.volume
    flat = tiles.ndim == 2 if flat is None else flat
    voxel = tiles.voxel_um or (1.0,) * tiles.ndim
    return OutputSettings(
        dtype=tiles.dtype,
        channels=tiles.channels,
        chunk=(1, *chosen.chunk_2d) if flat else chosen.chunk_3d,
        shard=(1, *chosen.shard_2d) if flat else chosen.shard_3d,
        compression=chosen.compression,
        voxel=(1.0,) * (3 - len(voxel)) + tuple(voxel),
        unit="micrometer" if tiles.voxel_um else None,
        pyramid=chosen.pyramid,
        coverage=chosen.coverage,
    )


def add_fusion(
    graph: JobGraph, run: RunFolder, config: TilesConfig, tiles: TileList, *, placed: bool
) -> None:
    """Canvas, fused shards, and the levels above them.

    With `placed` the tiles lie where the list says, and so the levels are known.
    """
    output = output_settings(config, tiles)
    blend = config.blend
    contrast = ContrastSettings(config.shading.contrast, config.shading.contrast_px)
    settings = FuseSettings(
        blend.mode, blend.interpolation, config.volume.coverage, blend.margin_px, contrast
    )
    add_contrast(graph, run, config, tiles)
    graph.map(
        "canvas", asdict(output), functools.partial(_one_canvas, run), LayOut(run, output),
        critical=True,
    )  # fmt: skip
    fused = graph.following("fuse", asdict(settings))
    failed = [key for key, _ in fused.failures()]  # which are forgotten when the job begins
    graph.add(
        "fuse",
        asdict(settings),
        functools.partial(_to_fuse, run, graph.ledger("convert"), fused, failed),
        lambda stage: FuseTiles(stage, run, settings),
    )
    volumes = {"pyramid": run.volume}
    if config.volume.coverage:
        volumes["coverage"] = run.coverage
    nominal = nominal_spec(tiles, output, run)
    levels = nominal.group_starts[1:] if placed else coarse_levels(nominal)
    add_levels(graph, volumes, levels, after="fuse")


def add_levels(
    graph: JobGraph, volumes: Mapping[str, str], levels: Iterable[int], *, after: str
) -> None:
    """The levels of some volumes above those that the stage `after` makes.

    Args:
        volumes: addresses, by the name that their stages begin with.
        levels: first ones of groups.
        after: the stage that draws level 0.
    """
    for level in levels:
        for name, uri in volumes.items():
            listing = functools.partial(list_shards, uri, level, graph.ledger(after))
            graph.map(f"{name}_{level}", None, listing, BuildShard(uri))


def nominal_spec(tiles: TileList, output: OutputSettings, run: RunFolder) -> VolumeSpec:
    """The volume as it would be if the tiles lay where the list says."""
    placed = [PlacedTile(source, source.stage) for source in sources_of(tiles, direct=True)]
    return volume_spec(frame(placed, output, run.format), output, run)


def coarse_levels(nominal: VolumeSpec) -> range:
    """Levels that the fuse stage may leave to make; a bound, where solving moves the tiles.

    The volume then hardly doubles, and keeps whole shards where it has several.
    """
    large = all(n >= 2 * s for n, s in zip(nominal.shape[3:], nominal.shard[3:], strict=True))
    first = nominal.group(0).stop if large else 1
    return range(first, len(nominal.levels) + 1)


def _one_canvas(run: RunFolder) -> Iterator[Unit]:
    placed = list(load_placement(run))
    maps = BendReader(run).fingerprint(p.source.key for p in placed)
    yield ("canvas",), digest([*(p.matrix for p in placed), *maps])


def _placed(run: RunFolder, converted: Ledger) -> Iterator[PlacedTile]:
    there = {source.key for source in usable(run, converted)}
    return (placed for placed in load_placement(run) if placed.source.key in there)


def _to_fuse(
    run: RunFolder, converted: Ledger, fused: Ledger, failed: Sequence[Key]
) -> Iterator[PlacedTile | ShardKey]:
    """The placed tiles, and the shards of the same canvas that were written: done or `failed`."""
    yield from _placed(run, converted)
    yield from (ShardKey(*key) for key in {*fused.marks(), *failed})


def plan(
    run: RunFolder, config: TilesConfig, tiles: TileList, sources: Sequence[TileSource]
) -> Plan:
    """What the shared stages will do, from the positions in the tile list."""
    spec = nominal_spec(tiles, output_settings(config, tiles), run)
    stages = (
        estimate.convert(tiles, needed=not all(s.direct for s in sources)),
        *estimate.greys(tiles, config, flatfield=wants_flatfield(config, tiles)),
        estimate.fuse(tiles, spec, config),
        estimate.pyramid(spec, estimate.itemsize(tiles)),
    )
    what = (
        f"{len(tiles)} tiles of {' x '.join(map(str, tiles.tiles[0].shape))} {tiles.dtype}, "
        f"{len(tiles.channels)} channels, {len(tiles.montages())} montages",
        f"-> {run.volume}: {' x '.join(map(str, spec.shape))} (tczyx), {len(spec.levels)} levels, "
        f"shards {' x '.join(map(str, spec.shard))}",
    )
    return Plan(stages, estimate.BASE_MEMORY, what)


def numbers(
    graph: JobGraph, run: RunFolder, seconds: float, *, stage: str = "fuse"
) -> dict[str, Any]:
    """What `stage` measured on the volume that it wrote, whose display window is set; nothing
    without one."""
    if not store.exists(run.canvas):
        return {}
    records = [record for _, record in graph.ledger(stage).records()]
    voxels = sum(r["voxels"] for r in records)
    shape = load_canvas(run).shape
    if run.format.startswith("zarr"):
        ngff.set_window(run.volume, [_window(records, channel) for channel in range(shape[1])])
    covered = sum(r["covered"] for r in records)
    return {
        "output": run.volume,
        "shape_tczyx": shape,
        "covered_fraction": covered / max(voxels, 1),
        "megavoxels": voxels / 1e6,
        "megavoxels_per_second": voxels / 1e6 / seconds,
    }


def _window(records: Sequence[Record], channel: int) -> tuple[float, float]:
    """The darkest and brightest value of a channel worth showing: 0.5 % and 99.5 %."""
    levels = [
        level
        for record in records
        for own, quantiles in enumerate(record["quantiles"], start=record["channel"])
        for level in quantiles
        if own == channel
    ]
    low, high = np.quantile(levels or [0.0, 1.0], [0.005, 0.995])
    return float(low), float(max(high, low + 1))
