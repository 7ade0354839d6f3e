"""`segment` on a volume: an image -> labels of its objects, and a table of them.

warpbeam segment volume.ome.zarr segmented/
warpbeam segment sections.ome.zarr linked/ --set link.enabled=true
warpbeam segment tissue.ome.zarr neurites/ --set pieces.enabled=true
warpbeam segment job.yaml --set watershed.enabled=true -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import segment_volume
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
segment_volume.run(SegmentVolumeConfig(image="volume.ome.zarr", output="segmented"))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from warpbeam.kernels.segment.solid import BasinSettings
from warpbeam.kernels.segment.threshold import ThresholdSettings
from warpbeam.pipelines import fusing, volume_plan
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import ListJob
from warpbeam.pipelines.plan import Plan
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
from warpbeam.transforms.canvas import OutputSettings
from warpbeam.transforms.pyramid import BuildShard, list_shards
from warpbeam.transforms.segment.volume import (
    agglomerate,
    join,
    joins,
    label,
    link,
    objects,
    output,
    pieces,
    reading,
    union,
)
from warpbeam.transforms.segment.volume.frame import BlockFrame
from warpbeam.transforms.stage import Work
from warpbeam.transforms.storage import ngff, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.tiles.volumes import read_volume
from warpbeam.transforms.storage.volume_spec import VolumeSpec


class SegmentVolumeJob(ListJob[SegmentVolumeConfig]):
    """The job `segment`, on a volume."""

    name = "segment_volume"
    model = SegmentVolumeConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        factors = ngff.level_factors(self.config.image)
        self._image = output.image_spec(
            self.tiles.tiles[0].shape, self.output_settings, self.run_folder,
            factors if self.config.volume.pyramid else (),
        )  # fmt: skip

    def read(self) -> TileList:
        return read_volume(self.config.image, name="image", time=self.config.input.time)

    def prepare(self) -> None:
        """The empty array of the blocks' own labels, before several workers write to it."""
        volume.create(self.frame.labels_spec(self.run_folder))

    def build(self, graph: JobGraph) -> None:
        fusing.add_convert(graph, self.run_folder, self.tiles, self.sources)
        if self.config.pieces.enabled:
            self._add_pieces(graph)
        else:
            self._add_objects(graph)
        self._add_union(graph)
        self._add_labels(graph)

    def _add_objects(self, graph: JobGraph) -> None:
        """What is above a grey value."""
        run, frame, joining = self.run_folder, self.frame, self.join_settings
        grey, threshold, labelling = (
            self.grey_settings, self.threshold_settings, self.label_settings
        )  # fmt: skip
        found = reading.FindThreshold(run, frame, grey, threshold)
        self._add_blocks(
            graph, [asdict(grey), asdict(threshold)], found, asdict(labelling),
            label.LabelBlock(run, frame, labelling),
        )  # fmt: skip
        self._add_joins(graph, joining, join.JoinBlock(run, frame, joining), "label")

    def _add_pieces(self, graph: JobGraph) -> None:
        """All of the volume, in pieces that are joined."""
        run, frame, chosen = self.run_folder, self.frame, self.piece_settings
        sheets = asdict(chosen.sheets)
        found = pieces.FindWeights(run, frame, chosen.sheets)
        self._add_blocks(graph, sheets, found, sheets, pieces.CutBlock(run, frame, chosen.sheets))
        listing = functools.partial(joins.list_contacts, run, frame, chosen, graph.ledger("label"))
        graph.map("contacts", None, listing, joins.CountContacts(run, frame, chosen))
        self._add_agglomeration(graph)
        joining = joins.JoinPieces(run, frame, chosen)
        self._add_joins(graph, chosen, joining, "contacts", also="roots_1")

    def _add_agglomeration(self, graph: JobGraph) -> None:
        """Up to the whole volume, and down; see `transforms.segment.volume.agglomerate`."""
        run, frame, chosen = self.run_folder, self.frame, self.piece_settings
        joining = agglomerate.JoinRegion(run, frame, chosen)
        handing = agglomerate.HandDown(run, frame)
        for level in range(1, frame.depth + 1):
            below = graph.ledger("contacts" if level == 1 else f"agglomerate_{level - 1}")
            listing = functools.partial(agglomerate.list_regions, frame, chosen.steps, level, below)
            graph.map(f"agglomerate_{level}", asdict(chosen), listing, joining, critical=True)
        for level in range(frame.depth, 0, -1):
            joined = graph.ledger(f"agglomerate_{level}")
            above = graph.ledger(f"roots_{level + 1}") if level < frame.depth else None
            regions = functools.partial(agglomerate.list_roots, level, joined, above, frame)
            graph.map(f"roots_{level}", None, regions, handing, critical=True)

    def _add_blocks(self, graph: JobGraph, first: Any, find: Work, second: Any, work: Work) -> None:
        """One look at all of the volume (`threshold`), then block after block (`label`)."""
        run, frame, converted = self.run_folder, self.frame, graph.ledger("convert")
        once = functools.partial(reading.one_threshold, run, converted)
        graph.map("threshold", first, once, find, critical=True)
        found = graph.ledger("threshold")
        blocks = functools.partial(label.list_blocks, run, frame, found, converted)
        graph.map("label", [asdict(frame), second], blocks, work)

    def _add_joins(
        self, graph: JobGraph, within: join.JoinSettings | joins.PieceSettings, work: Work,
        blocks: str, also: str | None = None,
    ) -> None:  # fmt: skip
        """Which labels are one object: `within` the volume, or within a section and through flow
        beyond it."""
        frame, before = self.frame, graph.ledger(blocks)
        common = graph.ledger(also) if also else None
        if self.config.link.enabled:
            linking = self.link_settings(within)
            units = functools.partial(link.list_links, frame, linking, before, common)
            linked = link.LinkBlock(self.run_folder, frame, linking)
            graph.map("join", asdict(linking), units, linked)
        else:
            units = functools.partial(join.list_joins, frame, within.steps, before, common)
            graph.map("join", asdict(within), units, work)

    def _add_union(self, graph: JobGraph) -> None:
        """Up to the whole volume, and down to the blocks; see `transforms.segment.volume.union`."""
        run, frame, keep, dense = (
            self.run_folder, self.frame, self.keep_settings, self.config.labels.dense
        )  # fmt: skip
        for level in range(1, frame.depth + 1):
            below = graph.ledger("join" if level == 1 else f"union_{level - 1}")
            graph.map(
                f"union_{level}", asdict(keep),
                functools.partial(union.list_regions, frame, level, below),
                union.JoinRegions(run, frame, keep),
            )  # fmt: skip
        joined = [graph.ledger(f"union_{level}") for level in range(1, frame.depth + 1)]
        settling = union.SettleRegion(run, frame, keep, dense=dense)
        for level in range(frame.depth, 0, -1):
            above = graph.ledger(f"settle_{level + 1}") if level < frame.depth else None
            listing = functools.partial(
                union.list_settlements, frame, level, joined, above, dense=dense
            )
            graph.map(f"settle_{level}", dense, listing, settling)

    def _add_labels(self, graph: JobGraph) -> None:
        run, frame, wanted = self.run_folder, self.frame, self.label_image
        settled = [graph.ledger(f"settle_{level}") for level in range(1, frame.depth + 1)]
        graph.map(
            "objects", None, functools.partial(objects.one_table, settled),
            objects.GatherObjects(run, settled, self.voxel_um),
        )  # fmt: skip
        if self.config.link.enabled:
            linked = graph.ledger("join")
            graph.map("links", None, functools.partial(link.one_table, linked, settled[0]),
                      link.GatherLinks(run, linked))  # fmt: skip
        facts = {**asdict(wanted), "image": wanted.image.to_json()}
        graph.map(
            "layout", facts, functools.partial(output.one_layout, settled[0]),
            output.LayOutLabels(run, self.output_settings, wanted), critical=True,
        )  # fmt: skip
        listing = functools.partial(output.list_relabels, frame, graph.ledger("join"), settled[0])
        graph.map("relabel", None, listing, output.RelabelBlock(run, frame, wanted.labels))
        self._add_levels(graph, "pyramid", wanted.labels, "relabel")
        if wanted.source is None:
            copies = functools.partial(output.list_copies, run, graph.ledger("layout"))
            graph.map("image", None, copies, output.CopyShard(run, wanted.image))
            self._add_levels(graph, "image_pyramid", wanted.image, "image")

    @staticmethod
    def _add_levels(graph: JobGraph, name: str, spec: VolumeSpec, below: str) -> None:
        for level in spec.group_starts[1:]:
            listing = functools.partial(list_shards, spec.uri, level, graph.ledger(below))
            graph.map(f"{name}_{level}", None, listing, BuildShard(spec.uri))
            below = f"{name}_{level}"

    @property
    def voxel_um(self) -> tuple[float, ...] | None:
        return self.config.input.voxel_um or self.tiles.voxel_um

    @property
    def output_settings(self) -> OutputSettings:
        chosen = self.config.volume
        return OutputSettings(
            dtype=self.tiles.dtype,
            channels=self.tiles.channels,
            chunk=chosen.chunk_3d,
            shard=chosen.shard_3d,
            compression=chosen.compression,
            voxel=self.voxel_um or (1.0, 1.0, 1.0),
            unit="micrometer" if self.voxel_um else None,
            pyramid=chosen.pyramid,
            coverage=False,
        )

    @functools.cached_property
    def frame(self) -> BlockFrame:
        image = self._image
        return BlockFrame(
            image.shape[2:], image.shard[2:], image.chunk[2:], self._halo,
            self.config.labels.fan_out,
            -(-self.config.link.gap // image.shard[2]) if self.config.link.enabled else 1,
        )  # fmt: skip

    @property
    def _halo(self) -> tuple[int, int, int]:
        """Of the watershed, and of the flow, which looks at sections alone."""
        cut, links = self.config.watershed, self.config.link
        z, y, x = cut.halo_px if cut.enabled else (0, 0, 0)
        if not links.enabled:
            return z, y, x
        seen = links.search_px + links.patch_px
        return 0, max(y, seen), max(x, seen)

    @property
    def grey_settings(self) -> reading.GreySettings:
        return reading.GreySettings(self.config.input.channel, self.config.threshold.gaussian_px)

    @property
    def threshold_settings(self) -> ThresholdSettings:
        given = self.config.threshold
        return ThresholdSettings(given.method, given.sd_factor, given.manual, 3, 0.0)

    @property
    def label_settings(self) -> label.LabelSettings:
        cut, basins = self.config.watershed, None
        if cut.enabled:
            basins = BasinSettings(self.output_settings.voxel, cut.smoothing_um, cut.fill)
        return label.LabelSettings(
            self.grey_settings, self.config.threshold.objects == "bright",
            self.config.objects.connectivity, basins, self.config.link.enabled,
        )  # fmt: skip

    @property
    def join_settings(self) -> join.JoinSettings:
        cut = self.config.watershed
        return join.JoinSettings(
            self.config.objects.connectivity, cut.least_iou if cut.enabled else None,
            self.config.link.enabled,
        )  # fmt: skip

    @property
    def piece_settings(self) -> joins.PieceSettings:
        given = self.config.pieces
        sheets = pieces.SheetSettings(
            self.grey_settings, given.sheet_px, given.sheets == "dark", self.config.link.enabled,
        )  # fmt: skip
        return joins.PieceSettings(sheets, given.threshold, given.enclosed)

    def link_settings(self, within: join.JoinSettings | joins.PieceSettings) -> link.LinkSettings:
        given = self.config.link
        return link.LinkSettings(
            reading.GreySettings(self.config.input.channel, (0.0, 0.0, 0.0)),
            given.patch_px, given.stride_px, given.search_px, given.steps, given.least_iou,
            given.least_return, given.gap, within,
        )  # fmt: skip

    @property
    def keep_settings(self) -> union.KeepSettings:
        return union.KeepSettings(self.config.objects.smallest, self.config.objects.largest)

    @property
    def label_image(self) -> output.LabelImage:
        given = self.config.labels
        source = None if given.with_image else self.config.image
        return output.LabelImage(self._image, given.name, "uint64", source)

    def check(self) -> None:
        """Refuses a channel that is not there, and formats that hold no labels."""
        self.check_channel(self.config.input.channel, "input.channel")
        if not self.config.volume.format.startswith("zarr"):
            raise InputError(
                "labels are OME-Zarr alone",
                where="volume.format",
                expected="zarr3 or zarr2",
                got=self.config.volume.format,
                fix="choose one of these",
            )

    def plan(self) -> Plan:
        return volume_plan.plan(
            self.tiles, self.frame, self.label_image, cut=self.config.watershed.enabled,
            pieces=self.config.pieces.enabled, linked=self.config.link.enabled,
            direct=all(source.direct for source in self.sources),
        )  # fmt: skip

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return volume_plan.numbers(graph, self.frame, seconds)


def run(
    config: SegmentVolumeConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    job = SegmentVolumeJob(config)
    return job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
