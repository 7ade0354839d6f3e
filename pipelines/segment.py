"""`segment`: a plate of images -> masks, and a database of objects.

warpbeam segment plate.csv segmented/ --chosen-wells A1-B3
warpbeam segment job.yaml --set preset=nuclei -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import segment
from warpbeam.pipelines.segment_config import SegmentConfig, object_settings
segment.run(SegmentConfig(plate="plate.csv", output="segmented"))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from warpbeam.kernels.segment.puncta import PunctaSettings
from warpbeam.kernels.segment.track import TrackSettings
from warpbeam.pipelines import segment_plan
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Job, Outcome
from warpbeam.pipelines.plan import Plan
from warpbeam.pipelines.segment_config import SegmentConfig, object_settings
from warpbeam.pipelines.segment_network import check_network, network_settings, weights_mark
from warpbeam.transforms.segment import (
    background,
    database,
    layout,
    number,
    objects,
    tables,
    track,
)
from warpbeam.transforms.segment.files import load_mark, load_sites, save_mark, save_sites
from warpbeam.transforms.segment.tryall import DrawAll
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import digest
from warpbeam.transforms.storage.plate import Plate, Selection, read_plate
from warpbeam.transforms.storage.plate.hcs import PlateSettings
from warpbeam.transforms.storage.plate.reading import PlateOptions


class SegmentJob(Job[SegmentConfig]):
    """The job `segment`."""

    name = "segment"
    model = SegmentConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plate: Plate = read_plate(
            self.config.plate,
            Selection(**self.config.select.model_dump()),
            PlateOptions(**self.config.input.model_dump()),
        )

    def fingerprint(self, *, with_versions: bool = True) -> str:
        return self.plate.fingerprint(with_versions=with_versions)

    def shared_inputs(self) -> str:
        return digest([self.plate.channels, self.plate.dtype, self.plate.voxel_um])

    def continues(self, theirs: dict[str, Any]) -> bool:
        """A plate may grow while it is recorded: by wells, tiles, and later times."""
        run = self.config.output
        return (
            theirs["job"] == self.name
            and theirs["settings"] == self.config.result_settings()
            and load_mark(run, "shared") == self.shared_inputs()
            and self.plate.extends(tuple(load_sites(run)))
        )

    def save_inputs(self) -> None:
        save_sites(self.config.output, self.plate)
        save_mark(self.config.output, "shared", self.shared_inputs())

    def discard(self, theirs: dict[str, Any]) -> None:
        """Takes the objects of the other run out of a database that goes on to be used."""
        url, run = self.config.database.url, self.config.output
        if theirs["job"] != self.name or url in (None, "off"):
            return
        if self.database_mark() == load_mark(run, "database"):
            database.discard_objects(run, url, theirs["settings"]["threshold"]["channel"])

    def prepare(self) -> None:
        """Opens the database, so that one that cannot be used is found before any work."""
        if self.database_url is not None:
            save_mark(self.config.output, "database", self.database_mark())

    def build(self, graph: JobGraph) -> None:
        run, config = self.config.output, self.config
        if config.threshold.method == "tryall":
            work = DrawAll(run, self.channel, object_settings(self.config))
            graph.map("tryall", None, functools.partial(objects.list_sites, run, None), work)
            return
        plate = self.plate_settings if config.masks.ome_zarr else None
        if plate is not None:
            listing = functools.partial(layout.list_experiments, run)
            graph.map("layout", plate.of_any_time(), listing, layout.LayOutPlate(run, plate),
                      critical=True)  # fmt: skip
        corrects = config.background.correct != "none"
        if corrects:
            graph.map("background", None, functools.partial(background.list_groups, run),
                      background.MeasureBackground(run))  # fmt: skip
        backgrounds = graph.ledger("background") if corrects else None
        settings = self.segment_settings
        graph.map("segment", [asdict(settings), weights_mark(settings.network)],
                  functools.partial(objects.list_sites, run, backgrounds),
                  objects.SegmentSite(run, settings, plate))  # fmt: skip
        self._add_tables(graph)

    def _add_tables(self, graph: JobGraph) -> None:
        """What follows segmentation: numbers of cells over time, database, tables."""
        run, config, segmented = self.config.output, self.config, graph.ledger("segment")
        tracked = None
        if config.track.enabled and len({s.key.timepoint for s in self.plate.sites}) > 1:
            reach = TrackSettings(
                config.track.shift_px, config.track.step_px, config.track.trait_px
            )
            graph.map("track", asdict(reach), functools.partial(track.list_wells, run, segmented),
                      track.TrackWell(run, reach, self.channel))  # fmt: skip
            tracked = graph.ledger("track")
            if config.track.masks:
                listing = functools.partial(number.list_tracked, run, segmented, tracked)
                graph.map("number", None, listing, number.NumberCells(run, self.channel))
        spots = bool(config.puncta.channels)
        if self.database_url is not None:
            work = database.StoreRows(
                run, self.database_url, self.channel, tiff=config.masks.tiff, puncta=spots
            )
            mark = load_mark(run, "database") if graph.pipeline is not None else None
            sites = functools.partial(database.list_segmented, run, segmented, tracked)
            graph.map("database", mark, sites, work)
        names = ("cells", "puncta") if spots else ("cells",)
        listing = functools.partial(tables.list_tables, names, segmented, tracked)
        gather = tables.GatherTable(self.run_folder, segmented, tracked, csv=config.tables.csv)
        graph.map("tables", config.tables.model_dump(), listing, gather)

    @property
    def channel(self) -> str:
        """The channel in which objects are found."""
        return self.config.threshold.channel or self.plate.channels[0]

    @property
    def database_url(self) -> str | None:
        """The database's address; None where none is wanted."""
        url = self.config.database.url
        if url is not None:
            return None if url == "off" else url
        path = store.local_path(self.config.output)
        if path is None:
            raise InputError(
                "a bucket cannot hold a SQLite database",
                where="database.url",
                expected="the address of a database, or 'off'",
                got=f"none, and the output {self.config.output}",
                fix="give postgresql://user:password@host/name, or sqlite:////local/file.sqlite",
            )
        return f"sqlite:///{path / 'plate.sqlite'}"

    def database_mark(self) -> str:
        """The mark of the database, which has its tables then."""
        from warpbeam.transforms.storage.database.connect import open_database

        return open_database(self.database_url or "")

    @property
    def segment_settings(self) -> objects.SegmentSettings:
        spots = self.config.puncta
        return objects.SegmentSettings(
            self.channel,
            object_settings(self.config),
            self.config.background.correct,
            spots.channels,
            PunctaSettings(
                spots.fine_px, spots.coarse_px, spots.contrast, spots.smallest, spots.largest
            ),
            self.config.masks.tiff,
            self.config.masks.crops_px,
            network_settings(self.config),
        )

    @property
    def plate_settings(self) -> PlateSettings:
        chosen = self.config.volume
        return PlateSettings(
            chosen.format, chosen.chunk_2d, chosen.shard_2d, chosen.compression, chosen.pyramid,
            self.plate.voxel_um, self.plate.dtype, self.plate.channels,
            tuple(sorted({site.key.timepoint for site in self.plate.sites})),
        )  # fmt: skip

    def check(self) -> None:
        """Refuses a network that is not there, channels that a site lacks, and formats that hold
        no plates."""
        if (network := network_settings(self.config)) is not None:
            check_network(network)
        wanted = {
            "threshold.channel": [self.channel],
            "puncta.channels": self.config.puncta.channels,
        }
        for where, names in wanted.items():
            for name in names:
                lacking = [site for site in self.plate.sites if name not in site.channels]
                if lacking:
                    raise InputError(
                        "a site has no image of a channel",
                        where=where,
                        expected=f"one of {', '.join(lacking[0].channels)}, in which each site "
                        "has an image",
                        got=f"{name}, which {lacking[0].key.name} and "
                        f"{len(lacking) - 1} other sites lack",
                        fix="choose another channel, or take these sites out",
                    )
        if self.config.masks.ome_zarr and not self.config.volume.format.startswith("zarr"):
            raise InputError(
                "plates are OME-Zarr alone",
                where="volume.format",
                expected="zarr3 or zarr2",
                got=self.config.volume.format,
                fix="choose one of these, or set masks.ome_zarr=false",
            )

    def plan(self) -> Plan:
        return segment_plan.plan(self.plate, self.config)

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return segment_plan.numbers(graph, self.plate, seconds)


def run(
    config: SegmentConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    job = SegmentJob(config)
    return job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
