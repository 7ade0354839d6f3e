"""`stitch`: overlapping tiles with rough positions -> one volume and a matrix per tile.

warpbeam stitch tiles.csv stitched/
warpbeam stitch job.yaml --set solve.model=affine -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import stitch
from warpbeam.pipelines.config import StitchConfig
stitch.run(StitchConfig(tiles="tiles.csv", output="stitched"))
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from warpbeam.kernels.montage.pair import strip_boxes
from warpbeam.pipelines import estimate, fusing
from warpbeam.pipelines.config import StitchConfig
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import TileJob
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.transforms.convert import usable
from warpbeam.transforms.link import (
    LinkSettings,
    MeasureLinks,
    MeasureNulls,
    list_links,
    list_nulls,
)
from warpbeam.transforms.overlap_flow import MeasureOverlap, OverlapSettings, list_overlaps
from warpbeam.transforms.place import PlaceTiles, SolveSettings, one_solve
from warpbeam.transforms.shading import shading_fingerprint
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tile_mesh import (
    IndexMaps,
    MeshSettings,
    RelaxTiles,
    list_montages,
    one_index,
)
from warpbeam.transforms.tiles import TileSource

# Point pairs per link that let a link tell rotation and scale.
_BLOCKS = {"translation": 1, "rigid": 6, "affine": 6}

# Overlaps of at least this width are told from chance at half of their resolution too; links
# that are looked at for that.
_WIDE_PX, _LOOKED_AT = 96, 100


class StitchJob(TileJob[StitchConfig]):
    """The job `stitch`."""

    name = "stitch"
    model = StitchConfig

    def build(self, graph: JobGraph) -> None:
        run, config = self.run_folder, self.config
        fusing.add_convert(graph, run, self.tiles, self.sources)
        fusing.add_flatfield(graph, run, config, self.tiles)
        self._add_links(graph)
        solve = SolveSettings(config.solve.model, config.solve.stage_sigma_px)
        links, nulls = graph.ledger("link"), graph.ledger("null")
        graph.map(
            "solve", asdict(solve), functools.partial(one_solve, links, nulls),
            PlaceTiles(run, links, nulls, solve), critical=True,
        )  # fmt: skip
        if config.elastic.enabled:
            self._add_elastic(graph)
        fusing.add_gain(graph, run, config, self.tiles)
        fusing.add_fusion(graph, run, config, self.tiles, placed=False)

    def _add_links(self, graph: JobGraph) -> None:
        run, settings = self.run_folder, self.link_settings
        for name, listing, work in (
            ("link", list_links, MeasureLinks(run, settings)),
            ("null", list_nulls, MeasureNulls(run, settings)),
        ):
            units = functools.partial(_listed, listing, run, graph.ledger("convert"), settings)
            graph.map(name, asdict(settings), units, work)

    def _add_elastic(self, graph: JobGraph) -> None:
        """Flow in the overlaps, meshes of all tiles, and the index of their maps."""
        run, overlaps = self.run_folder, self.overlap_settings
        listing = functools.partial(list_overlaps, run, graph.ledger("convert"))
        graph.map("flow", asdict(overlaps), listing, MeasureOverlap(run, overlaps))
        voxel = self.tiles.voxel_um
        mesh = MeshSettings(
            overlaps.stride, self.config.elastic.bending_px, self.config.elastic.anchor,
            voxel or (1.0,) * self.tiles.ndim, "micrometer" if voxel else None,
        )  # fmt: skip
        flows = graph.ledger("flow")
        graph.map("mesh", asdict(mesh), functools.partial(list_montages, run, flows),
                  RelaxTiles(run, flows, mesh), critical=True)  # fmt: skip
        meshes, solve = graph.ledger("mesh"), graph.ledger("solve")
        graph.map("maps", None, functools.partial(one_index, meshes, solve),
                  IndexMaps(run, meshes), critical=True)  # fmt: skip

    @property
    def overlap_settings(self) -> OverlapSettings:
        """How overlaps are compared point by point."""
        chosen, flat = self.config.elastic, self.tiles.ndim == 2

        def lengths(z: int, yx: int) -> tuple[int, ...]:
            return (yx, yx) if flat else (z, yx, yx)

        return OverlapSettings(
            self.config.link.channel,
            lengths(chosen.patch_z_px, chosen.patch_px),
            lengths(chosen.stride_z_px, chosen.stride_px),
            lengths(chosen.search_z_px, chosen.search_px),
            chosen.finest,
            chosen.min_peak_ratio,
            chosen.min_sharpness or None,
            chosen.max_magnitude_px or None,
        )

    @functools.cached_property
    def link_settings(self) -> LinkSettings:
        """How neighbours are compared.

        Raises:
            InputError: the channel does not exist.
        """
        link, ndim = self.config.link, self.tiles.ndim
        self.check_channel(link.channel, "link.channel")
        depth = (round(link.search_z_px),) if ndim == 3 else ()
        search = (*depth, round(link.search_px), round(link.search_px))
        blocks = _BLOCKS[self.config.solve.model]
        full = LinkSettings(link.channel, search, link.min_overlap_px, blocks, 1)
        return replace(full, reduction=link.reduction or self._reduction(full))

    def _reduction(self, full: LinkSettings) -> int:
        """2 where positions need not be exact and half of the overlaps is enough to go by."""
        if not self.config.elastic.enabled:
            return 1
        nominal = replace(full, search=(0,) * self.tiles.ndim)
        narrow = [min(s[-2:]) for s in itertools.islice(self._overlaps(nominal), _LOOKED_AT)]
        return 2 if narrow and statistics.median(narrow) >= _WIDE_PX else 1

    def check(self) -> None:
        """Refuses tiles of which no two overlap, or too little for the patches of `elastic`: there
        would be nothing to solve."""
        super().check()
        if len(self.tiles) < 2:
            return
        if not any(True for _ in list_links(self.sources, self.link_settings)):
            raise InputError(
                "no two tiles overlap",
                where=self.config.tiles,
                expected=f"neighbours that share at least {self.config.link.min_overlap_px} px",
                got=f"{len(self.tiles)} tiles apart from one another",
                fix="check the positions and their unit, input.voxel_um, input.overlap, and "
                "input.flip_y, input.flip_x, input.swap_xy; or use `warpbeam fuse`",
            )

        patch = self.overlap_settings.patch
        if self.config.elastic.enabled and not any(
            np.all(2 * np.array(shape) >= patch) for shape in self._overlaps(self.link_settings)
        ):
            raise InputError(
                "patches are larger than the overlaps",
                where="elastic.patch_px, elastic.patch_z_px",
                expected="at most about the width of an overlap",
                got=" x ".join(map(str, patch)),
                fix="choose smaller patches",
            )

    def _overlaps(self, settings: LinkSettings) -> Iterator[tuple[int, ...]]:
        """Shapes of the parts of tiles that may lie on a neighbour."""
        for _, (fixed, beside, _) in list_links(self.sources, settings):
            for other in beside:
                yield strip_boxes(
                    fixed.shape, other.source.shape, offset=other.offset, search=settings.search
                )[0].shape

    def plan(self) -> Plan:
        shared = fusing.plan(self.run_folder, self.config, self.tiles, self.sources)
        settings = self.link_settings
        own: tuple[StagePlan, ...] = estimate.links(
            self.tiles, list_links(self.sources, settings), settings
        )
        if self.config.elastic.enabled:
            units = list_links(self.sources, settings)
            own += estimate.elastic(self.tiles, units, self.overlap_settings.stride)
        convert, *rest = shared.stages
        return Plan((convert, *own, *rest), shared.base_memory, shared.what)

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        stages = ("solve", "maps") if self.config.elastic.enabled else ("solve",)
        records = [record for name in stages for _, record in graph.ledger(name).records()]
        fused = fusing.numbers(graph, self.run_folder, seconds)
        return {**{k: v for record in records for k, v in record.items()}, **fused}


def _listed(
    listing: Callable[[Iterable[TileSource], LinkSettings, str], Iterator[Unit]],
    run: RunFolder,
    converted: Ledger,
    settings: LinkSettings,
) -> Iterator[Unit]:
    shading = shading_fingerprint(run, "flat", "dark")
    return listing(usable(run, converted), settings, shading)


def run(
    config: StitchConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    job = StitchJob(config)
    return job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
