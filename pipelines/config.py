"""Typed configuration of the jobs: what may be set, its range, its default, its meaning.

One frozen model per job; `settings` reads them. Defaults live here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


def positive(voxel_um: Any) -> Any:
    """A size of voxels, one number or several, or None.

    Raises:
        ValueError: one of them is not a positive, finite number.
    """
    if voxel_um is not None:
        sizes = voxel_um if isinstance(voxel_um, tuple) else (voxel_um,)
        if not all(0 < size < math.inf for size in sizes):
            raise ValueError(f"voxels have positive sizes, got {voxel_um}")
    return voxel_um


class InputConfig(Section):
    """How the tile list is read."""

    format: Literal["table", "fiji", "mist", "stage"] | None = Field(
        None, description="which list to read where a folder holds several"
    )
    images: str | None = Field(None, description="folder of the files that the list names")
    pattern: str | None = Field(
        None,
        description="name pattern of a folder of images, such as 'tile_{row}_{col}.tif'; "
        "fields: row col index tile z section channel time",
    )
    grid: tuple[int, int] | None = Field(None, description="rows and columns, to place {index}")
    order: Literal["row", "column"] = Field("row", description="how {index} visits the grid")
    snake: bool = Field(False, description="every second row (column) of {index} runs backwards")
    overlap: float | tuple[float, float] | None = Field(
        None, description="nominal overlap of a grid: a fraction below 1, or pixels; yx or one"
    )
    voxel_um: float | tuple[float, ...] | None = Field(
        None, description="voxel size yx or zyx in micrometres; else what the files say"
    )
    flip_y: bool = Field(False, description="the stage's y axis runs against the images'")
    flip_x: bool = Field(False, description="the stage's x axis runs against the images'")
    swap_xy: bool = Field(False, description="the stage's x axis is the images' y axis")
    transforms: str | None = Field(
        None, description="transforms.json with a matrix per tile, joined to the tile list"
    )

    @field_validator("voxel_um")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        return positive(value)


class LinkConfig(Section):
    """How neighbouring tiles are compared."""

    channel: int = Field(0, ge=0, description="the channel that is compared")
    search_px: float = Field(
        24.0, gt=0, le=512, description="largest error of the stage between two neighbours, px"
    )
    search_z_px: float = Field(6.0, ge=0, le=512, description="the same along z, for volumes, px")
    reduction: Literal[1, 2, 4] | None = Field(
        None, description="compare tiles that are reduced so many times, which takes less time; "
        "none: 2 where tiles may bend (elastic.enabled), because they are compared again, and "
        "overlaps are 96 px wide; else 1",
    )  # fmt: skip
    min_overlap_px: int = Field(
        12, ge=4, description="narrowest nominal overlap that is compared, px"
    )


class SolveConfig(Section):
    """How all tiles are placed together."""

    model: Literal["translation", "rigid", "affine"] = Field(
        "translation", description="what may happen to a tile"
    )
    stage_sigma_px: float = Field(
        8.0, gt=0, description="standard error of a stage position, px: the weight of the prior"
    )


class ElasticConfig(Section):
    """How tiles may bend, so that they meet in every point of their overlaps.

    The defaults are for electron microscopy, whose tiles are bent by a few pixels over some
    hundred.
    """

    enabled: bool = Field(False, description="let tiles bend")
    stride_px: int = Field(
        20, ge=4, le=512,
        description="distance of mesh nodes, px: between nodes a bend of ten times this length "
        "is drawn with an error of 5 % at most",
    )  # fmt: skip
    patch_px: int = Field(
        48, ge=16, le=512,
        description="patches that are compared, px: smaller ones follow shorter bends, larger "
        "ones stand more noise",
    )  # fmt: skip
    search_px: int = Field(
        12, ge=2, le=128,
        description="how far a point may lie from where the solved positions have it, px: about "
        "twice the bend of a tile",
    )  # fmt: skip
    stride_z_px: int = Field(8, ge=2, le=512, description="stride_px along z, for volumes")
    patch_z_px: int = Field(16, ge=4, le=512, description="patch_px along z, for volumes")
    search_z_px: int = Field(4, ge=1, le=128, description="search_px along z, for volumes")
    finest: Literal[1, 2, 4] = Field(
        2, description="the tiles are compared at this reduction: 1 takes twice the time of 2 and "
        "is twice as exact, a twentieth of a pixel",
    )  # fmt: skip
    min_peak_ratio: float = Field(
        1.3,
        ge=1,
        le=10,
        description="a point is believed if it matches this much better than any other place",
    )
    min_sharpness: float = Field(
        0, ge=0,
        description="a point is believed if it matches this much better than the worst place "
        "around it; 0: any",
    )  # fmt: skip
    max_magnitude_px: float = Field(
        0, ge=0,
        description="a point may be off so much from the median of its overlap, px; 0: any",
    )  # fmt: skip
    bending_px: float = Field(
        50.0,
        gt=0,
        le=10_000,
        description="stiffness of a tile: bends of this wavelength are halved, of twice the "
        "wavelength lose 6 %, of four times 0.4 %",
    )
    anchor: float = Field(
        1e-4, gt=0, le=1,
        description="tie of a tile to its solved position, beside 1 for the points: what keeps a "
        "large montage from drifting",
    )  # fmt: skip


class ShadingConfig(Section):
    """How grey values are made comparable."""

    flatfield: Literal["auto", "on", "off"] = Field(
        "auto",
        description="estimate and remove the shading that all tiles share; auto: from 16 tiles on",
    )
    dark: bool = Field(False, description="estimate an additive background too")
    gain: Literal["off", "gain", "gain-offset"] = Field(
        "gain", description="match the brightness of tiles over their overlaps"
    )
    contrast: Literal["none", "local", "clahe"] = Field(
        "none",
        description="even out contrast of 2-D tiles as they are drawn: by local mean and "
        "deviation, or by adaptive histogram equalisation to 256 values",
    )
    contrast_px: int = Field(
        256, ge=16, description="size of the neighbourhoods over which contrast is evened out, px"
    )


class BlendConfig(Section):
    """How overlapping tiles become one image."""

    mode: Literal["linear", "cosine", "mean", "max", "closest", "multiband"] = Field(
        "linear",
        description="linear and cosine: weights that fall towards the border, straight or smooth; "
        "mean, max; closest: the tile whose middle is nearest; multiband: coarse structures over "
        "wide seams, fine ones over narrow ones, which changes tiles at the ends of their seams "
        "even where they agree",
    )
    interpolation: Literal["nearest", "linear", "cubic", "lanczos"] = Field(
        "linear", description="how a tile is sampled; lanczos in 2-D only"
    )
    margin_px: int = Field(
        0, ge=0, le=4096,
        description="so far from its border along y and x a tile counts only where no other one "
        "lies; for linear, cosine and mean",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_weights(self) -> BlendConfig:
        if self.margin_px and self.mode not in ("linear", "cosine", "mean"):
            raise ValueError(f"margin_px is for linear, cosine and mean, not for {self.mode}")
        return self


class VolumeConfig(Section):
    """What is written."""

    format: Literal["zarr3", "zarr2", "n5", "precomputed"] = Field(
        "zarr3",
        description="zarr3 is OME-NGFF 0.5, sharded; zarr2 is OME-NGFF 0.4; precomputed volumes "
        "begin at 0 where their place is no whole voxel of every level",
    )
    chunk_2d: tuple[int, int] = Field((512, 512), description="yx voxels a viewer fetches at once")
    shard_2d: tuple[int, int] = Field((2048, 2048), description="yx voxels of one stored object")
    chunk_3d: tuple[int, int, int] = Field((32, 128, 128), description="the same for volumes, zyx")
    shard_3d: tuple[int, int, int] = Field((64, 512, 512), description="the same for volumes, zyx")
    compression: int = Field(1, ge=0, le=9, description="level of zstd (gzip in N5)")
    pyramid: bool = Field(True, description="write coarser levels too")
    coverage: bool = Field(False, description="write how many tiles lie on each voxel")

    @model_validator(mode="after")
    def _whole_chunks(self) -> VolumeConfig:
        for chunk, shard in ((self.chunk_2d, self.shard_2d), (self.chunk_3d, self.shard_3d)):
            if any(s < 1 or c < 1 or s % c for s, c in zip(shard, chunk, strict=True)):
                raise ValueError(f"a shard {shard} must hold whole chunks {chunk}")
        return self


class RunConfig(Section):
    """How the work is done; never changes the result."""

    workers: int = Field(0, ge=0, description="local workers; 0: one per core")
    worker_memory_gb: float = Field(4.0, gt=0, description="refuse a plan that needs more a worker")
    report: bool = Field(True, description="write report.html at the end")
    attempts: int = Field(4, ge=1, le=20, description="tries of a unit whose store is busy")
    failed_share: float = Field(
        0.0, ge=0, le=1,
        description="end with status 1 only where more than this share of a stage's units failed",
    )  # fmt: skip
    price_per_core_hour: float = Field(
        0.07, ge=0, description="for the estimate in the plan; list price of a cloud core, USD"
    )


# Fields that say how or where work is done, not what comes out.
_NOT_IN_RESULT = {
    *("run", "output", "tiles", "sections", "fixed", "moving", "registration", "plate", "image"),
}


# Name of a preset -> section -> field -> value.
Presets = Mapping[str, Mapping[str, Mapping[str, Any]]]


class JobConfig(Section):
    """What every job has.

    `presets` are the defaults that the field `preset` chooses among, in jobs that have it;
    `command` is that of the job, where the model is not named by it; `counts_tiles` says whether
    there are tiles that can be counted on each voxel.
    """

    source_field: ClassVar[str] = "tiles"
    command: ClassVar[str | None] = None
    presets: ClassVar[Presets] = {}
    counts_tiles: ClassVar[bool] = False

    output: str = Field(description="folder or bucket prefix of the run")
    input: InputConfig = InputConfig()
    volume: VolumeConfig = VolumeConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, values: Any) -> Any:
        """The job's own defaults of a section below the preset's, and those below what is given:
        pydantic forgets the first where any field of the section is given."""
        if not isinstance(values, dict):
            return values
        merged, field = dict(values), cls.model_fields.get("preset")
        preset = cls.presets.get(str(values.get("preset", field and field.default)), {})
        for section, field in cls.model_fields.items():
            given = values.get(section, {})
            if isinstance(field.default, Section) and isinstance(given, dict):
                own = field.default.model_dump(exclude_unset=True)
                merged[section] = {**own, **preset.get(section, {}), **given}
        return merged

    @model_validator(mode="after")
    def _coverage_of_tiles_alone(self) -> Self:
        if self.volume.coverage and not self.counts_tiles:
            raise ValueError("volume.coverage counts tiles, which this job has none of")
        return self

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the output."""
        return self.model_dump(mode="json", exclude=_NOT_IN_RESULT)


class TilesConfig(JobConfig):
    """What every job on tiles has."""

    counts_tiles: ClassVar[bool] = True

    tiles: str = Field(description="tile list, or folder of tiles")
    shading: ShadingConfig = ShadingConfig()
    blend: BlendConfig = BlendConfig()


class StitchConfig(TilesConfig):
    """Overlapping tiles with rough positions -> one fused volume and a matrix per tile."""

    link: LinkConfig = LinkConfig()
    solve: SolveConfig = SolveConfig()
    elastic: ElasticConfig = ElasticConfig()


class FuseConfig(TilesConfig):
    """Tiles with known matrices -> one fused volume."""

    shading: ShadingConfig = ShadingConfig(flatfield="off", gain="off")
