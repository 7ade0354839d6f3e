"""Settings of the job `segment`, and presets for kinds of images."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_serializer, model_validator

from warpbeam.kernels.segment.plate import ObjectSettings
from warpbeam.kernels.segment.threshold import ThresholdSettings
from warpbeam.pipelines.config import JobConfig, Presets, Section

Toggle = Literal["include", "exclude"]
Method = Literal[
    "otsu", "sd_from_mean", "mean", "minimum", "yen", "li", "isodata", "triangle", "manual",
    "local", "sauvola", "cellpose", "tryall",
]  # fmt: skip


class PlateInputConfig(Section):
    """How the plate is read."""

    images: str | None = Field(None, description="folder of the files that the plate table names")
    pattern: str | None = Field(
        None,
        description="name pattern of a folder of images, such as "
        "'{well}_T{timepoint}_{tile}_{channel}.tif'; also {experiment}",
    )


class SelectConfig(Section):
    """What of the plate is segmented and measured."""

    experiment: str | None = Field(None, description="the one experiment; none: all")
    wells: str = Field("all", description="all, or names and rectangles such as A1,B2-D4")
    wells_toggle: Toggle = Field("include", description="whether those wells are in or out")
    timepoints: str = Field("all", description="all, or numbers and ranges such as T0-T7")
    timepoints_toggle: Toggle = Field("include", description="whether those times are in or out")
    channels: str = Field("all", description="all, or names with commas between")
    channels_toggle: Toggle = Field("include", description="whether those channels are in or out")
    tile: int | None = Field(None, description="the one tile; none: all")


class BackgroundConfig(Section):
    """The background: the median over the tiles of a well, time and channel."""

    correct: Literal["none", "subtract", "divide"] = Field(
        "none", description="what is done with it, before anything is found or measured"
    )


class ThresholdConfig(Section):
    """Which pixels belong to objects."""

    channel: str | None = Field(
        None, description="the channel in which objects are found; none: the first one"
    )
    method: Method = Field(
        "otsu",
        description="as in scikit-image; cellpose: a network instead, see there; tryall draws all "
        "thresholds and does nothing else",
    )
    gaussian_px: float = Field(0.0, ge=0, le=100, description="smoothing before it, sigma in px")
    sd_factor: float = Field(
        3.5, ge=0, le=100, description="standard deviations above the mean, for sd_from_mean"
    )
    manual: float = Field(0.0, description="the grey value above which objects lie, for manual")
    block_px: int = Field(
        51, ge=3, le=1001, description="neighbourhood of local and sauvola, an odd number of px"
    )
    sauvola_k: float = Field(0.2, ge=0, le=1, description="weight of local contrast in sauvola")
    floor: Literal["none", "otsu", "li", "triangle", "mean", "isodata", "yen"] = Field(
        "none",
        description="a threshold for the whole image that objects of local and sauvola must pass "
        "too, else they find objects in an empty background",
    )

    @model_validator(mode="after")
    def _odd(self) -> ThresholdConfig:
        if self.block_px % 2 == 0:
            raise ValueError(f"block_px must be odd, got {self.block_px}")
        return self


class CellposeConfig(Section):
    """How a network finds cells (threshold.method: cellpose; needs the package cellpose).

    It runs on a GPU where torch sees one; on a CPU it takes minutes per image.
    """

    model: str = Field(
        "cpsam_v2",
        description="name of a model of cellpose, which each worker downloads when it first needs "
        "it, or a file with weights that all workers see",
    )
    diameter_px: float = Field(
        0.0, ge=0, le=5000,
        description="size of a cell, px: images are scaled until it is 30; 0: they are not scaled",
    )  # fmt: skip
    flow_threshold: float = Field(
        0.4, ge=0, le=10,
        description="cells whose shape disagrees more with the network's flow are left out; 0: "
        "none is",
    )  # fmt: skip
    cell_probability: float = Field(
        0.0, ge=-20, le=20,
        description="logit above which a pixel belongs to a cell; less finds more and larger cells",
    )  # fmt: skip


class ObjectsConfig(Section):
    """Which pieces count as objects. Holes and necks are matters of thresholds: a network fills
    and cuts by itself."""

    fill_holes: bool = Field(False, description="dark places inside an object belong to it")
    neck: float = Field(
        0.0, ge=0, le=1,
        description="cut touching objects where the neck between is narrower than this share of "
        "the narrower one; 0: never, 0.8 suits nuclei",
    )  # fmt: skip
    split_smoothing_px: float = Field(
        1.0, ge=0, le=20, description="smoothing of the distance to the border, sigma in px"
    )
    smallest: int = Field(50, ge=0, description="objects have more pixels than this")
    largest: int = Field(36000, ge=1, description="objects have fewer pixels than this")
    clear_border: bool = Field(False, description="leave out objects at the image's border")
    apart_px: float = Field(
        0.0, ge=0, description="leave out both of two objects whose centroids are so close, px"
    )

    @model_validator(mode="after")
    def _some_size(self) -> Self:
        if self.smallest + 1 >= self.largest:
            raise ValueError(
                f"no object is larger than {self.smallest} and smaller than {self.largest} pixels"
            )
        return self


class PunctaConfig(Section):
    """Small bright spots inside the objects: difference of two Gaussians."""

    channels: tuple[str, ...] = Field((), description="channels in which spots are looked for")
    fine_px: float = Field(1.0, gt=0, le=50, description="sigma of the finer Gaussian, px")
    coarse_px: float = Field(2.0, gt=0, le=50, description="sigma of the coarser one, px")
    contrast: float = Field(100.0, gt=0, description="least difference of the two, grey values")
    smallest: int = Field(2, ge=0, description="spots have more pixels than this")
    largest: int = Field(1000, ge=1, description="spots have fewer pixels than this")


class TrackConfig(Section):
    """Cells followed from one time to the next."""

    enabled: bool = Field(True, description="give a cell one number at all its times (cellid)")
    masks: bool = Field(
        False,
        description="store masks with these numbers too, below tracked/; needs masks.tiff",
    )
    shift_px: float = Field(
        60.0, ge=0, le=1000, description="how far the whole image may move between two times, px"
    )
    step_px: float = Field(
        25.0, gt=0, le=500, description="how far a cell may move beside that, px"
    )
    trait_px: float = Field(
        15.0, ge=0, le=500,
        description="a doubling of a cell's area or brightness counts as a step of so many px",
    )  # fmt: skip


class MasksConfig(Section):
    """How the objects are stored."""

    tiff: bool = Field(True, description="a TIFF per image, zstd, below masks/")
    ome_zarr: bool = Field(True, description="OME-Zarr plates of images and labels, below plates/")
    crops_px: int = Field(
        0, ge=0, le=4096,
        description="side of a square that is cut out of every channel around each object: a TIFF "
        "[object, channel, y, x] per image, below crops/; 0: none",
    )  # fmt: skip


def without_password(address: str) -> str:
    """What run.json and the report show of the address of a database."""
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", address)


class DatabaseConfig(Section):
    """Where the rows go."""

    url: str | None = Field(
        None,
        description="sqlite:///file or postgresql://user:password@host/name; none: plate.sqlite "
        "in the output; 'off': no database",
    )

    @field_serializer("url")
    def _shown(self, url: str | None) -> str | None:
        return url and without_password(url)


class TablesConfig(Section):
    """Tables beside the database."""

    csv: bool = Field(False, description="write CSV as well as Parquet")


# What differs from the defaults above.
PRESETS: Presets = {
    # One threshold for the image, no cuts, as the Finkbeiner lab's program has it.
    "cells": {},
    # Stained nuclei, alone or in clumps, in images of uneven brightness: a local threshold finds
    # the gaps between bright neighbours, a floor keeps it out of the background.
    "nuclei": {
        "threshold": {"method": "local", "block_px": 51, "floor": "li"},
        "objects": {"fill_holes": True, "neck": 0.8, "smallest": 20},
    },
}


class SegmentConfig(JobConfig):
    """A plate of images -> masks, and a database of objects."""

    source_field: ClassVar[str] = "plate"
    presets: ClassVar[Presets] = PRESETS

    plate: str = Field(
        description="plate table, address of a database, folder of images, or OME-Zarr plate"
    )
    preset: Literal["cells", "nuclei"] = Field(
        "cells", description="defaults for a kind of image; what is set beside it wins"
    )
    input: PlateInputConfig = PlateInputConfig()  # type: ignore[assignment]
    select: SelectConfig = SelectConfig()
    background: BackgroundConfig = BackgroundConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    cellpose: CellposeConfig = CellposeConfig()
    objects: ObjectsConfig = ObjectsConfig()
    puncta: PunctaConfig = PunctaConfig()
    track: TrackConfig = TrackConfig()
    masks: MasksConfig = MasksConfig()
    database: DatabaseConfig = DatabaseConfig()
    tables: TablesConfig = TablesConfig()

    @field_serializer("plate")
    def _shown(self, plate: str) -> str:
        return without_password(plate)

    @model_validator(mode="after")
    def _numbers_are_those_of_masks(self) -> Self:
        if self.track.masks and not self.masks.tiff:
            raise ValueError("track.masks needs masks.tiff: it numbers those masks anew")
        return self

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the masks; the same masks may go to another database."""
        return {k: v for k, v in super().result_settings().items() if k != "database"}


def object_settings(config: SegmentConfig) -> ObjectSettings:
    """What an object is, as the kernels take it."""
    found, chosen = config.threshold, config.objects
    threshold = ThresholdSettings(
        found.method, found.sd_factor, found.manual, found.block_px, found.sauvola_k, found.floor
    )
    return ObjectSettings(
        threshold, found.gaussian_px, chosen.fill_holes, chosen.neck, chosen.split_smoothing_px,
        chosen.smallest, chosen.largest, chosen.clear_border, chosen.apart_px,
    )  # fmt: skip
