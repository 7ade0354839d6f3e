"""`align`: a stack of serial sections -> one aligned volume and a map per section.

warpbeam align sections/ aligned/
warpbeam align job.yaml --set preset=em_3d -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import align
from warpbeam.pipelines.align_config import AlignConfig
align.run(AlignConfig(sections="sections", output="aligned"))
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from warpbeam.kernels.flow.clean import CleanSettings
from warpbeam.kernels.flow.exclude import Exclusion
from warpbeam.kernels.flow.reconcile import ReconcileSettings
from warpbeam.kernels.mesh.chain import ChainSettings
from warpbeam.kernels.mesh.folds import Limits
from warpbeam.pipelines import align_numbers, align_parts, align_plan, fusing
from warpbeam.pipelines.align_config import AlignConfig
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import ListJob
from warpbeam.pipelines.plan import Plan
from warpbeam.transforms.align import (
    blocks,
    clean,
    frame,
    join,
    measure,
    mesh,
    output,
    reading,
    render,
    rough,
    settle,
    starts,
)
from warpbeam.transforms.align.redone import Part
from warpbeam.transforms.canvas import OutputSettings
from warpbeam.transforms.convert import usable
from warpbeam.transforms.placement import save_placement
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileList, TileOptions
from warpbeam.transforms.storage.tiles.sections import at_time, read_sections
from warpbeam.transforms.tiles import PlacedTile


class AlignJob(ListJob[AlignConfig]):
    """The job `align`."""

    name = "align"
    model = AlignConfig

    def read(self) -> TileList:
        options = TileOptions(**self.config.input.model_dump())
        given = self.config
        found = at_time(read_sections(given.sections, options=options), given.time)
        first, last = (
            found.tiles[end].section if wanted is None else wanted
            for end, wanted in ((0, given.first_section), (-1, given.last_section))
        )
        chosen = tuple(tile for tile in found if first <= tile.section <= last)
        if len(chosen) < 2:
            raise InputError(
                "there are no two sections to align",
                where="first_section, last_section",
                expected=f"a range within {found.tiles[0].section} to {found.tiles[-1].section}",
                got=f"{first} to {last}",
                fix="choose a wider range",
            )
        return replace(found, tiles=chosen)

    def prepare(self) -> None:
        """Without a rough stage sections lie where the list has them."""
        if self.config.rough.model == "none":
            save_placement(self.run_folder, [PlacedTile(s, s.stage) for s in self.sources])

    def build(self, graph: JobGraph) -> None:
        fusing.add_convert(graph, self.run_folder, self.tiles, self.sources)
        self._add_reduction(graph)
        self._add_rough(graph)
        self._add_flow(graph)
        self._add_meshes(graph)
        self._add_volume(graph)

    def _add_reduction(self, graph: JobGraph) -> None:
        run, scales = self.run_folder, self.reductions
        if not scales:
            return
        largest = tuple(max(n) for n in zip(*(t.shape for t in self.tiles), strict=True))
        shape = (len(self.tiles), *largest)
        work = reading.ReduceSection(run, self.sections, scales, shape, self.tiles.dtype)
        listing = functools.partial(reading.list_reductions, run, graph.ledger("convert"))
        graph.map("reduce", [asdict(self.sections), scales], listing, work)

    def _add_rough(self, graph: JobGraph) -> None:
        run, given = self.run_folder, self.config.rough
        if given.model == "none":
            return
        settings = rough.RoughSettings(
            given.model, given.method, self.rough_scale, given.gaps, given.rotation_deg,
            max(1, *self.config.flow.scales),
        )  # fmt: skip
        graph.map(
            "rough", [asdict(self.sections), asdict(settings)],
            functools.partial(rough.list_pairs, self._readable(graph), settings),
            rough.ComparePairs(run, self.sections, settings),
        )  # fmt: skip
        compared = graph.ledger("rough")
        graph.map(
            "place", None, functools.partial(rough.one_placement, compared),
            rough.PlaceSections(run, compared, settings), critical=True,
        )  # fmt: skip

    def _readable(self, graph: JobGraph) -> reading.Readable:
        """Lists the sections that the stages so far could read."""
        if self.reductions:
            return functools.partial(
                reading.reduced_sections, self.run_folder, graph.ledger("reduce")
            )
        return functools.partial(usable, self.run_folder, graph.ledger("convert"))

    def _add_flow(self, graph: JobGraph) -> None:
        run, given = self.run_folder, self.config.flow
        readable = self._readable(graph)
        laid_out = self.frame_settings
        graph.map(
            "frame", [asdict(laid_out), frame.LAYOUT], functools.partial(frame.one_frame, run),
            frame.LayOutFrame(run, laid_out), critical=True,
        )  # fmt: skip
        measuring = measure.MeasureSettings(
            given.patch_px, given.search_px, given.steps, given.every, given.contrast
        )
        graph.map(
            "flow", [asdict(self.sections), asdict(measuring)],
            functools.partial(measure.list_flows, run, readable),
            measure.MeasureFlow(run, self.sections, measuring),
        )  # fmt: skip
        rules = self.clean_rules
        graph.map(
            "clean", asdict(rules),
            functools.partial(clean.list_cleaning, run, readable, graph.ledger("flow")),
            clean.CleanFlow(run, self.sections, measuring, rules),
        )  # fmt: skip

    def _add_meshes(self, graph: JobGraph) -> None:
        run, given = self.run_folder, self.config.mesh
        settings = self.mesh_settings
        cleaned = graph.ledger("clean")
        graph.map(
            "mesh", asdict(settings),
            functools.partial(blocks.list_blocks, run, cleaned, settings),
            mesh.RelaxBlock(run, settings),
        )  # fmt: skip
        meshes = graph.ledger("mesh")
        graph.map(
            "starts", None,
            functools.partial(starts.one_composition, "starts", run, cleaned, meshes, settings),
            starts.ComposeStarts(run, settings), critical=True,
        )  # fmt: skip
        begun, chains = graph.ledger("starts"), []
        turns = align_plan.chain_turns(self.tiles, given.block_sections)
        for turn in range(turns):
            name = "chain" if turn == 0 else f"chain_{turn + 1}"
            graph.map(
                name, None,
                functools.partial(mesh.list_chains, run, cleaned, begun, settings, turn),
                mesh.ChainBlock(run, settings, turn), critical=True,
            )  # fmt: skip
            chains.append(graph.ledger(name))
            name = "agree" if turn == 0 else f"agree_{turn + 1}"
            graph.map(
                name, None,
                functools.partial(
                    starts.one_composition, "agree", run, cleaned, chains[-1], settings
                ),
                join.ComposeAgain(run, settings, turn), critical=True,
            )  # fmt: skip
            begun = graph.ledger(name)
        graph.map(
            "join", None, functools.partial(join.list_joins, chains, begun),
            join.JoinBlock(run, settings, turns), critical=True,
        )  # fmt: skip
        voxel = self.output_settings.voxel
        settling = settle.SettleSettings(
            given.steady_drift, given.drift_sections, given.anchor, (voxel[1], voxel[2]),
            voxel[0], self.output_settings.unit,
        )  # fmt: skip
        graph.map(
            "settle", asdict(settling),
            functools.partial(settle.list_runs, graph.ledger("join"), settling, self.parts),
            settle.SettleSections(run, settling), critical=True,
        )  # fmt: skip

    def _add_volume(self, graph: JobGraph) -> None:
        run, wanted = self.run_folder, self.output_settings
        settled = graph.ledger("settle")
        graph.map(
            "canvas", [asdict(wanted), output.MAPS],
            functools.partial(output.one_canvas, settled),
            output.LayOutAligned(run, wanted), critical=True,
        )  # fmt: skip
        graph.map(
            "invert", None,
            functools.partial(output.list_inversions, settled, graph.ledger("canvas")),
            output.InvertSections(run), critical=True,
        )  # fmt: skip
        drawing = render.RenderSettings(**self.config.render.model_dump())
        graph.map(
            "render", asdict(drawing),
            functools.partial(render.list_renders, run, graph.ledger("invert")),
            render.RenderShard(run, drawing),
        )  # fmt: skip
        levels = align_plan.coarse_levels(self.tiles, wanted, run)
        fusing.add_levels(graph, {"pyramid": run.volume}, levels, after="render")

    @functools.cached_property
    def parts(self) -> list[Part]:
        """The runs that aligned some of the sections again."""
        return align_parts.parts_of(self.config.redone, self.tiles)

    def continues(self, theirs: dict[str, Any]) -> bool:
        """Some more sections may have been aligned again."""
        if theirs["job"] != self.name:
            return False
        mine, other = self.config.result_settings(), dict(theirs["settings"])
        return (
            theirs["inputs"] == self.fingerprint(with_versions=False)
            and set(other.pop("redone", ())) <= set(mine.pop("redone"))
            and other == mine
        )

    @property
    def sections(self) -> reading.SectionSettings:
        """What of a section is compared."""
        given = self.config.flow
        rules = [
            Exclusion(r.channel, r.values, r.below, r.above, r.invert, r.grow_px, r.cuts)
            for r in given.exclude
        ]
        if given.background is not None:
            rules.append(Exclusion(given.channel, (given.background,)))
        return reading.SectionSettings(given.channel, tuple(rules))

    @property
    def reductions(self) -> tuple[int, ...]:
        """The reductions that are stored."""
        wanted = {*self.config.flow.scales}
        if self.config.rough.model != "none":
            wanted.add(self.rough_scale)
        return tuple(sorted(k for k in wanted if k > 1))

    @property
    def rough_scale(self) -> int:
        """The reduction at which whole sections are compared: a power of two."""
        longest = max(max(t.shape) for t in self.tiles)
        return 2 ** max(math.ceil(math.log2(longest / self.config.rough.longest_px)), 0)

    @property
    def frame_settings(self) -> frame.FrameSettings:
        given = self.config.flow
        nodes = max(given.block_px * min(given.scales) // given.stride_px, 1)
        return frame.FrameSettings(given.stride_px, nodes, given.scales, given.gaps, given.bridges)

    @property
    def clean_rules(self) -> clean.CleanRules:
        """Which vectors are believed; a limit of 0 is none."""
        given = self.config.flow
        return clean.CleanRules(
            CleanSettings(
                given.min_peak_ratio,
                given.min_sharpness or None,
                min_ncc=given.min_correlation or None,
                max_magnitude=given.max_magnitude_px or None,
                max_deviation=given.max_deviation_px,
            ),
            ReconcileSettings(
                max_gradient=given.max_gradient_px or None,
                min_component=given.min_component,
                min_gap=given.min_gap,
            ),
            given.bridge_above,
            self.config.mesh.skip,
        )

    @property
    def mesh_settings(self) -> blocks.MeshSettings:
        """How sections become sheets, and which of their cells are folds."""
        given = self.config.mesh
        limits = Limits(
            given.least_stretch, given.most_stretch, given.fold_radius, given.fold_weight,
            given.fold_retries,
        )  # fmt: skip
        solved = ChainSettings(given.least_known, given.most_scatter_px, limits)
        return blocks.MeshSettings(
            given.bending_px, given.spring, given.block_sections, solved, given.skip
        )

    @property
    def output_settings(self) -> OutputSettings:
        return fusing.output_settings(self.config, self.tiles, flat=False)

    def check(self) -> None:
        """Refuses what cannot be aligned: channels, sections and grey values that are not there,
        patches larger than the sections."""
        flow = self.config.flow
        self.check_grey(self.config.render.background, "render.background")
        self._check_sections("mesh.skip", self.config.mesh.skip)
        if self.config.mesh.anchor is not None:
            self._check_sections("mesh.anchor", [self.config.mesh.anchor])
        align_parts.check(self.parts, self.sources)
        self.check_channel(flow.channel, "flow.channel")
        for rule in flow.exclude:
            self.check_channel(rule.channel, "flow.exclude.channel")
        smallest = min(min(t.shape) for t in self.tiles)
        if flow.patch_px * min(flow.scales) > smallest:
            raise InputError(
                "a patch is larger than a section",
                where="flow.patch_px, flow.scales",
                expected=f"at most {smallest} px of the section",
                got=f"{flow.patch_px} px at a reduction of {min(flow.scales)}",
                fix="choose smaller patches or a finer scale",
            )

    def _check_sections(self, where: str, wanted: Sequence[int]) -> None:
        there = {tile.section for tile in self.tiles}
        if absent := sorted(set(wanted) - there):
            raise InputError(
                "there is no such section",
                where=where,
                expected=f"some of the sections {min(there)} to {max(there)}",
                got=", ".join(map(str, absent)),
                fix="correct the numbers",
            )

    def plan(self) -> Plan:
        return align_plan.plan(
            self.run_folder, self.config, self.tiles, self.sources, self.output_settings
        )

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return align_numbers.numbers(graph, self.run_folder, seconds)


def run(
    config: AlignConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    return AlignJob(config).execute(flags, stages=stages, overwrite=overwrite, watch=watch)
