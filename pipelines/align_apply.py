"""`align --apply`: other sections, such as labels, or points through the maps of an alignment.

warpbeam align labels/ labels_aligned/ --apply aligned/ --set render.interpolation=nearest
warpbeam align fine/ fine_aligned/ --apply aligned/ --set scale=4
warpbeam align points.csv moved.csv --apply aligned/

from warpbeam.pipelines import align_apply
from warpbeam.pipelines.align_config import ApplyStackConfig
align_apply.run(ApplyStackConfig(alignment="aligned", sections="labels", output="labels_aligned"))
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.maps.points import warp_points
from warpbeam.pipelines import estimate, fusing, points
from warpbeam.pipelines.align_config import ApplyStackConfig
from warpbeam.pipelines.drawing import pyramid_method
from warpbeam.pipelines.finished import finished_alignment
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import ListJob
from warpbeam.pipelines.plan import Plan
from warpbeam.transforms.align import output, render
from warpbeam.transforms.align.frame import load_frame
from warpbeam.transforms.align.section_maps import load_forward
from warpbeam.transforms.canvas import Canvas, OutputSettings, load_canvas
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList, TileOptions
from warpbeam.transforms.storage.tiles.sections import at_time, read_sections
from warpbeam.transforms.storage.volume_spec import VolumeSpec

_NAMED = 8  # sections, in a message
_RENDER_VOXELS_PER_S = 40e6


class ApplyStackJob(ListJob[ApplyStackConfig]):
    """Draws other sections through the maps of a run of `align`."""

    name = "apply_stack"
    model = ApplyStackConfig

    def read(self) -> TileList:
        self._maps, self._mark = finished_alignment(self.config.alignment)
        options = TileOptions(**self.config.input.model_dump())
        found = at_time(read_sections(self.config.sections, options=options), self.config.time)
        aligned = {p.source.key.section: p.source.shape for p in load_placement(self._maps)}
        chosen = tuple(tile for tile in found if tile.section in aligned)
        for tile in chosen:
            expected = [n * self.config.scale for n in aligned[tile.section]]
            misfit = np.abs(np.subtract(tile.shape, expected))
            # What is reduced or enlarged may have lost or gained the rest of a pixel.
            if (misfit >= max(self.config.scale, 1)).any():
                raise _other_shape(tile.images[0].file, expected, tile.shape)
        given = {tile.section for tile in found}
        if not chosen or (given - set(aligned) and set(aligned) - given):
            raise _other_sections(self.config.alignment, set(aligned), given)
        return replace(found, tiles=chosen)

    def build(self, graph: JobGraph) -> None:
        run, maps, wanted = self.run_folder, self._maps, self.output_settings
        fusing.add_convert(graph, run, self.tiles, self.sources)
        canvas, spec = self._canvas
        graph.map(
            "canvas", [asdict(wanted), self._method, self.config.scale],
            functools.partial(_one_canvas, self._mark),
            output.LayOutApplied(canvas, spec, run), critical=True,
        )  # fmt: skip
        drawing = render.RenderSettings(**self.config.render.model_dump(), scale=self.config.scale)
        graph.map(
            "render", asdict(drawing),
            functools.partial(
                render.list_applied, run, maps, self._mark, graph.ledger("convert")
            ),
            render.RenderShard(run, drawing, maps),
        )  # fmt: skip
        fusing.add_levels(graph, {"pyramid": run.volume}, spec.group_starts[1:], after="render")

    @property
    def _method(self) -> str:
        return pyramid_method(self.config.render.interpolation)

    @property
    def output_settings(self) -> OutputSettings:
        spec = volume.open_volume(self._maps.volume).spec
        given = fusing.output_settings(self.config, self.tiles, flat=False)
        depth, *plane = spec.voxel
        voxel = (depth, *(size / self.config.scale for size in plane))
        return replace(given, voxel=voxel, unit=spec.unit)

    @functools.cached_property
    def _canvas(self) -> tuple[Canvas, VolumeSpec]:
        return output.applied_spec(
            self.run_folder, self._maps, self.output_settings, self._method, self.config.scale
        )

    def check(self) -> None:
        """Refuses grey values that are not there, and labels that would be blended."""
        self.check_grey(self.config.render.background, "render.background")
        self.check_ids(self.config.render.interpolation, "render.interpolation")

    def plan(self) -> Plan:
        _, spec = self._canvas
        direct = all(source.direct for source in self.sources)
        stages = estimate.drawing(
            self.tiles, spec, direct=direct, voxels_per_s=_RENDER_VOXELS_PER_S
        )
        what = (f"{self.config.sections} -> {self.run_folder.volume}",)
        return Plan(tuple(stages), estimate.BASE_MEMORY, what)

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return fusing.numbers(graph, self.run_folder, seconds, stage="render")


def _one_canvas(mark: str) -> Iterator[Unit]:
    yield ("canvas",), mark


def move_points(
    alignment: str, source: str, target: str, scale: float = 1, *, overwrite: bool = False
) -> int:
    """Points of the sections in the aligned volume.

    Args:
        alignment: folder of a run of `align`.
        source: CSV with columns z, the number of a section, and y and x, px of its image; others
            are kept.
        target: the same file with z, y and x in voxels of the aligned volume; empty where the
            section was not aligned, or its map is not known there.
        scale: pixels of these images, and of the volume, along one of those that were aligned.
        overwrite: whether a file that is there may be replaced.

    Returns:
        How many points have no place in the aligned volume.

    Raises:
        InputError: there is no such alignment, or the columns are not there.
    """
    maps, _ = finished_alignment(alignment)
    units = "the number of a section and px of its image"
    pixel = np.array([1.0, 1 / scale, 1 / scale])  # in those of the sections that were aligned

    def through(at: points.Points) -> points.Points:
        return (_aligned(maps, (at + 0.5) * pixel - 0.5) + 0.5) / pixel - 0.5

    return points.move_points(source, target, through, units=units, overwrite=overwrite)


def _aligned(maps: RunFolder, at: points.Points) -> points.Points:
    frame, forward, origin = load_frame(maps), load_forward(maps), load_canvas(maps).origin
    numbers, moved = np.rint(at[:, 0]), np.full(at.shape, np.nan)
    for placed in load_placement(maps):
        section = placed.source.key.section
        here = numbers == section
        if here.any():
            z = frame.z(section)
            world = affine.apply(affine.homogeneous(placed.matrix), at[here, 1:])
            moved[here, 1:] = warp_points(forward.read(z), world) - origin[1:]
            moved[here, 0] = at[here, 0] - section + z
    moved[~np.isfinite(moved).all(axis=1)] = np.nan
    return moved


def _other_shape(name: str, expected: Sequence[float], got: Sequence[int]) -> InputError:
    return InputError(
        "a section is not in the frame of the one that was aligned",
        where=name,
        expected=f"{' x '.join(f'{n:g}' for n in expected)} px",
        got=f"{' x '.join(map(str, got))} px",
        fix="give labels, or another channel, of the same images; say with scale=2 that they are "
        "twice as fine, with scale=0.5 that they are reduced",
    )


def _other_sections(run: str, aligned: set[int], given: set[int]) -> InputError:
    common = len(aligned & given) or "none"
    return InputError(
        "the sections have other numbers than those that were aligned",
        where=run,
        expected=f"those that were aligned, or some of them: {_few(aligned)}",
        got=f"{_few(given)}, of which {common} were aligned",
        fix="number them as those that were aligned, or list those alone that were",
    )


def _few(sections: set[int]) -> str:
    named = [str(section) for section in sorted(sections)]
    return ", ".join(named if len(named) <= _NAMED else [*named[: _NAMED - 1], "…", named[-1]])


def run(config: ApplyStackConfig, flags: Sequence[str] = (), **options: Any) -> Outcome:
    """Runs or continues the job; options as of `Job.execute`."""
    return ApplyStackJob(config).execute(flags, **options)
