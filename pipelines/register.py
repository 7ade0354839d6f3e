"""`register`: a moving volume -> the frame of a fixed one, and the map between them.

warpbeam register fixed.tif moving.tif registered/
warpbeam register job.yaml --set lattice.bending_px=40 -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import register
from warpbeam.pipelines.register_config import RegisterConfig
config = RegisterConfig(fixed="fixed.tif", moving="moving.tif", output="registered")
register.run(config)                    # or in three steps:
register.run(config, step="coarse")     # one linear map of whole volumes
register.run(config, step="chunks")     # one field of all chunks
register.run(config, step="volume")     # drawn, with its maps, and judged
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.chunk_engine import ChunkEngine
from warpbeam.kernels.register.linear_fit import LinearModel
from warpbeam.pipelines import fusing, register_numbers, register_plan
from warpbeam.pipelines.drawing import add_drawing
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import ListJob
from warpbeam.pipelines.plan import Plan
from warpbeam.pipelines.register_config import RegisterConfig
from warpbeam.pipelines.register_dense import DenseEngine, dense_engine
from warpbeam.transforms.canvas import OutputSettings
from warpbeam.transforms.register import chunks, coarse, dense, output, quality, reading, solve
from warpbeam.transforms.register.frame import FIXED, Frame, PassSettings, forward_uri
from warpbeam.transforms.register.given import read_landmarks, read_start
from warpbeam.transforms.storage import images
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageRef
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.tiles.volumes import VolumePair, read_volumes
from warpbeam.transforms.tiles import as_rows, sources_of

Step = Literal["coarse", "chunks", "volume"]

# Stiffness of the field in the coarse passes, whose matches are few: a share of the final one.
_COARSE_BENDING = 0.6
_FINE_BENDING = 0.8
_CHECK_LEVEL = 2


class RegisterJob(ListJob[RegisterConfig]):
    """The job `register`."""

    name = "register"
    model = RegisterConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        refs = [ImageRef(*tile_images[0]) for tile_images in (s.images for s in self.sources)]
        direct = all(images.probe(ref).random_access for ref in refs)
        self.sources = sources_of(self.tiles, direct=direct)

    def read(self) -> TileList:
        given = self.config.volumes
        self.pair: VolumePair = read_volumes(
            (self.config.fixed, self.config.moving),
            masks=(given.fixed_mask, given.moving_mask),
            voxels_um=(given.fixed_voxel_um, given.moving_voxel_um),
        )
        return self.pair.tiles

    def build(self, graph: JobGraph) -> None:
        run, frame, volumes = self.run_folder, self.frame, self.volumes
        fusing.add_convert(graph, run, self.tiles, self.sources, critical=True)
        listing = functools.partial(reading.list_blocks, run, frame, graph.ledger("convert"))
        graph.map(
            "reduce", [dataclasses.asdict(frame), dataclasses.asdict(volumes)], listing,
            reading.ReduceBlock(run, frame, volumes), critical=True,
        )  # fmt: skip
        start = self.coarse_settings
        graph.map(
            "coarse", dataclasses.asdict(start),
            functools.partial(coarse.one_start, graph.ledger("reduce")),
            coarse.FitWhole(run, frame, volumes, start), critical=True,
        )  # fmt: skip
        self._add_passes(graph)
        if self._dense:
            self._add_dense(graph, self._dense.engine)
        self._add_volume(graph)

    def _add_dense(self, graph: JobGraph, engine: ChunkEngine) -> None:
        run, frame = self.run_folder, self.frame
        level, least = self.config.lattice.finest, self.config.lattice.least_jacobian
        before = graph.ledger(f"solve_{len(frame.passes) - 1}")
        graph.map(
            "dense", [repr(engine), level],
            functools.partial(chunks.list_chunks, frame, frame.last, before),
            dense.RegisterChunk(run, frame, self.volumes, engine, level),
        )  # fmt: skip
        registered = graph.ledger("dense")
        graph.map(
            "blend", least, functools.partial(dense.one_blend, registered),
            dense.BlendChunks(run, frame, registered, level, least), critical=True,
        )  # fmt: skip

    def _add_passes(self, graph: JobGraph) -> None:
        run, frame = self.run_folder, self.frame
        matching = chunks.MatchChunk(run, frame, self.volumes)
        least, points = self.config.lattice.least_jacobian, self._landmarks
        solving = solve.SolveField(run, frame, least, points)
        settings = [least, None if points is None else dataclasses.asdict(points)]
        before = "coarse"
        for number in range(len(frame.passes)):
            match, field = f"match_{number}", f"solve_{number}"
            listing = functools.partial(chunks.list_chunks, frame, number, graph.ledger(before))
            graph.map(match, None, listing, matching)
            graph.map(
                field, settings,
                functools.partial(solve.one_field, number, graph.ledger(match)),
                solving, critical=True,
            )  # fmt: skip
            before = field

    def _add_volume(self, graph: JobGraph) -> None:
        run, frame, wanted = self.run_folder, self.frame, self.output_settings
        last = graph.ledger(frame.last_stage)
        maps = output.MapSettings(self.voxels, wanted.unit, self.config.export.itk)
        graph.map(
            "maps", dataclasses.asdict(maps), functools.partial(output.one_map, last),
            output.StoreMaps(run, frame, maps), critical=True,
        )  # fmt: skip
        add_drawing(
            graph, run, frame.shapes[FIXED], wanted, self.config.draw, uri=forward_uri(run),
            after="maps",
        )  # fmt: skip
        judged = functools.partial(chunks.list_chunks, frame, frame.last + 1, last)
        graph.map("quality", None, judged, quality.JudgeChunk(run, frame, self.volumes))

    def stages_of(self, step: Step) -> list[str]:
        """The names of the stages of a step."""
        names = [stage.name for stage in self.graph().stages]
        coarse, drawn = names.index("coarse") + 1, names.index("maps")
        parts: dict[Step, list[str]] = {
            "coarse": names[:coarse], "chunks": names[coarse:drawn], "volume": names[drawn:],
        }  # fmt: skip
        return parts[step]

    @property
    def voxels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Sizes of the fixed and of the moving voxels; 1 where nobody says."""
        fixed, moving = self.pair.voxels_um
        first = fixed or moving or (1.0, 1.0, 1.0)
        return first, moving or first

    @functools.cached_property
    def frame(self) -> Frame:
        given = self.config.lattice
        fixed, moving = (tile.shape for tile in self.tiles)
        check = PassSettings(_CHECK_LEVEL, 4 / 3 * given.window_px, 0.0, given.bending_px)
        return Frame(
            (fixed, moving), self.voxels, given.stride_px, self.config.chunks.size_px,
            self._passes(), check, self._dense.overlap if self._dense else 0,
        )  # fmt: skip

    @functools.cached_property
    def _dense(self) -> DenseEngine | None:
        return dense_engine(self.config)

    def _passes(self) -> tuple[PassSettings, ...]:
        """Coarse to fine: a search, then deformation steps on levels 4, 2 and 1."""
        given = self.config.lattice
        if self.config.engine == "none":
            return ()
        window, stiff = given.window_px, given.bending_px
        found = []
        if given.search_px:
            found.append(PassSettings(4, 2 * window, given.search_px, stiff * _COARSE_BENDING))
        found.append(PassSettings(4, 2 * window, 0.0, stiff * _COARSE_BENDING))
        found += [dataclasses.replace(found[-1], again=True)] * given.retries
        if self._dense:  # which does the rest
            return tuple(found)
        if given.finest <= 2:
            # what is steep comes within reach of the full resolution in two steps, not in one
            found += [
                PassSettings(2, 4 / 3 * window, 0.0, stiff * share)
                for share in (_COARSE_BENDING, _FINE_BENDING)
            ]
        if given.finest == 1:
            found += [PassSettings(1, window, 0.0, stiff)] * given.steps
        return tuple(found)

    @property
    def volumes(self) -> reading.VolumeSettings:
        given = self.config.volumes
        return reading.VolumeSettings(
            (given.fixed_channel, given.moving_channel), given.background,
            self.config.chunks.least_known,
        )  # fmt: skip

    @property
    def coarse_settings(self) -> coarse.CoarseSettings:
        given = self.config.coarse
        start = None if self._start is None else as_rows(self._start[:3])
        return coarse.CoarseSettings(
            given.start, given.model, given.rotation_deg, given.least_score, start
        )

    @functools.cached_property
    def _start(self) -> affine.Matrix | None:
        """The matrix in the file that the user gives."""
        given = self.config.coarse
        if given.initial is None:
            return None
        model: LinearModel = "affine"
        if given.model != "none" and given.model != "trsaa":
            model = given.model
        return read_start(given.initial, self.voxels, model)

    @functools.cached_property
    def _landmarks(self) -> solve.Landmarks | None:
        given = self.config.landmarks
        if given.file is None:
            return None
        fixed, moving = (as_rows(points) for points in read_landmarks(given.file, self.voxels))
        return solve.Landmarks(fixed, moving, given.error_px)

    @property
    def output_settings(self) -> OutputSettings:
        chosen, (voxel, _) = self.config.volume, self.voxels
        return OutputSettings(
            dtype=self.tiles.tiles[1].dtype,
            channels=self.tiles.channels,
            chunk=chosen.chunk_3d,
            shard=chosen.shard_3d,
            compression=chosen.compression,
            voxel=voxel,
            unit="micrometer" if self.pair.voxels_um[0] else None,
            pyramid=chosen.pyramid,
            coverage=False,
        )

    def check(self) -> None:
        """Refuses channels, landmarks and engines that are not there."""
        _ = self._landmarks
        self.check_grey(self.config.draw.background, "draw.background")
        if self._dense:
            self._dense.extra.require("engine", otherwise="match")
        given = self.config.volumes
        for name, channel, count in zip(
            ("fixed", "moving"), (given.fixed_channel, given.moving_channel), self.pair.channels,
            strict=True,
        ):  # fmt: skip
            if channel >= count:
                raise InputError(
                    "there is no such channel",
                    where=f"volumes.{name}_channel",
                    expected=f"0 to {count - 1}",
                    got=str(channel),
                    fix="choose one of these",
                )

    def plan(self) -> Plan:
        direct = all(source.direct for source in self.sources)
        return register_plan.plan(
            self.run_folder,
            self.frame,
            self.tiles,
            self.output_settings,
            direct=direct,
            tiff=self.config.draw.tiff,
            dense=self._dense,
        )

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return register_numbers.numbers(graph, self.run_folder, self.frame, seconds)


def run(
    config: RegisterConfig,
    flags: Sequence[str] = (),
    *,
    step: Step | None = None,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job, or one of its three steps; see `Job.execute`.

    Args:
        step: "coarse" ends with the linear map, "chunks" with the field of all chunks, "volume"
            draws, stores the maps and judges; None for all. Each continues where it was stopped,
            and needs the one before.
    """
    job = RegisterJob(config)
    chosen = job.stages_of(step) if step else stages
    return job.execute(flags, stages=chosen, overwrite=overwrite, watch=watch)
