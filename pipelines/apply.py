"""`register --apply`: the map of a registration drawn with another volume, or moving points.

warpbeam register labels.tif labels_registered/ --apply registered/ --set draw.interpolation=nearest
warpbeam register points.csv moved.csv --apply registered/

from warpbeam.pipelines import apply
from warpbeam.pipelines.register_config import ApplyConfig
apply.run(ApplyConfig(registration="registered", moving="other.tif", output="other_registered"))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.kernels.maps.points import warp_points
from warpbeam.pipelines import estimate, fusing, points
from warpbeam.pipelines.drawing import add_drawing, pyramid_method
from warpbeam.pipelines.finished import finished_run
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import ListJob
from warpbeam.pipelines.plan import Plan
from warpbeam.pipelines.register_config import ApplyConfig
from warpbeam.transforms.canvas import Canvas, OutputSettings, load_canvas
from warpbeam.transforms.register.frame import forward_uri, inverse_uri
from warpbeam.transforms.register.output import registered_spec
from warpbeam.transforms.storage import displacements, store, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.tiles.volumes import read_volume
from warpbeam.transforms.storage.volume_spec import VolumeSpec

_RENDER_VOXELS_PER_S = 15e6


class ApplyJob(ListJob[ApplyConfig]):
    """Draws another volume through the map of a run of `register`."""

    name = "apply"
    model = ApplyConfig

    def read(self) -> TileList:
        self._canvas, self._spec, self._mark = _registration(self.config.registration)
        return read_volume(self.config.moving, "moving")

    def build(self, graph: JobGraph) -> None:
        run = self.run_folder
        fusing.add_convert(graph, run, self.tiles, self.sources)
        add_drawing(
            graph, run, self._canvas.shape[2:], self.output_settings, self.config.draw,
            uri=self._map, after="convert", mark=self._mark,
        )  # fmt: skip

    @property
    def _map(self) -> str:
        return forward_uri(RunFolder(self.config.registration))

    @functools.cached_property
    def output_settings(self) -> OutputSettings:
        chosen, spec = self.config.volume, self._spec
        return OutputSettings(
            dtype=self.tiles.dtype,
            channels=self.tiles.channels,
            chunk=chosen.chunk_3d,
            shard=chosen.shard_3d,
            compression=chosen.compression,
            voxel=spec.voxel,
            unit=spec.unit,
            pyramid=chosen.pyramid,
            coverage=False,
        )

    def check(self) -> None:
        """Refuses a volume that is not where the registered one was, grey values that are not
        there, and labels that would be blended."""
        self.check_grey(self.config.draw.background, "draw.background")
        self.check_ids(self.config.draw.interpolation, "draw.interpolation")
        theirs = tuple(store.read_json(self.run_folder_of_map.sources)[-1][2])
        mine = self.tiles.tiles[0].shape
        if theirs != mine:
            raise InputError(
                "the volume is not in the frame of the one that was registered",
                where=self.config.moving,
                expected=f"shape {theirs}, as the moving volume of {self.config.registration} has",
                got=f"shape {mine}",
                fix="give another channel, or labels, of that volume",
            )

    @property
    def run_folder_of_map(self) -> RunFolder:
        return RunFolder(self.config.registration)

    def plan(self) -> Plan:
        spec = registered_spec(
            self._canvas.shape[2:], self.output_settings, self.run_folder,
            pyramid_method(self.config.draw.interpolation),
        )  # fmt: skip
        direct = all(source.direct for source in self.sources)
        stages = estimate.drawing(
            self.tiles, spec, direct=direct, voxels_per_s=_RENDER_VOXELS_PER_S
        )
        if self.config.draw.tiff:
            stages.append(estimate.tiff(spec, estimate.itemsize(self.tiles)))
        what = (f"{self.config.moving} -> {self.run_folder.volume}",)
        return Plan(tuple(stages), estimate.BASE_MEMORY, what)

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return fusing.numbers(graph, self.run_folder, seconds, stage="render")


def _registration(run: str) -> tuple[Canvas, VolumeSpec, str]:
    """Canvas and volume of a finished run of `register`, and a mark of its map."""
    folder, mark = finished_run(run, "register", "registration", forward_uri, "maps")
    return load_canvas(folder), volume.open_volume(folder.volume).spec, mark


def move_points(registration: str, source: str, target: str, *, overwrite: bool = False) -> int:
    """Points of the moving volume in the frame of the fixed one.

    Args:
        registration: folder of a run of `register`.
        source: CSV with columns z, y and x in moving voxels; others are kept.
        target: the same file with z, y and x in fixed voxels; empty where the map is not known.
        overwrite: whether a file that is there may be replaced.

    Returns:
        How many points have no place in the fixed frame.

    Raises:
        InputError: there is no such registration, or the columns are not there.
    """
    _registration(registration)
    inverse = displacements.load(inverse_uri(RunFolder(registration))).read()
    through = functools.partial(warp_points, inverse)
    return points.move_points(source, target, through, units="moving voxels", overwrite=overwrite)


def run(
    config: ApplyConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    return ApplyJob(config).execute(flags, stages=stages, overwrite=overwrite, watch=watch)
