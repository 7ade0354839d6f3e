"""Settings of the job `segment` on a volume."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from warpbeam.pipelines.config import JobConfig, Section, positive

Triple = tuple[float, float, float]
WholeTriple = tuple[int, int, int]


class VolumeImageConfig(Section):
    """What of the image is segmented."""

    channel: int = Field(0, ge=0, description="channel in which objects are found")
    time: int = Field(0, ge=0, description="the one time")
    voxel_um: Triple | None = Field(
        None, description="zyx size of a voxel in micrometres; else what the file says"
    )

    @field_validator("voxel_um")
    @classmethod
    def _positive(cls, value: Triple | None) -> Triple | None:
        return positive(value)


class GreyConfig(Section):
    """Which voxels belong to objects."""

    method: Literal[
        "otsu", "sd_from_mean", "mean", "minimum", "yen", "li", "isodata", "triangle", "manual"
    ] = Field(
        "otsu",
        description="one grey value for the whole volume, as in scikit-image, from the histogram "
        "of boxes all over it; manual with 0 takes a mask as it is",
    )
    manual: float = Field(0.0, description="the grey value, for manual")
    sd_factor: float = Field(
        3.5, ge=0, le=100, description="standard deviations above the mean, for sd_from_mean"
    )
    objects: Literal["bright", "dark"] = Field(
        "bright",
        description="bright: above the grey value; dark: the rest, such as what lies between "
        "bright boundaries",
    )
    gaussian_px: Triple = Field(
        (0.0, 0.0, 0.0), description="smoothing before the threshold, sigma zyx in voxels"
    )

    @field_validator("gaussian_px")
    @classmethod
    def _not_negative(cls, value: Triple) -> Triple:
        if min(value) < 0 or max(value) > 100:
            raise ValueError(f"sigmas are 0 to 100 voxels, got {value}")
        return value


class WatershedConfig(Section):
    """How touching objects are cut: basins of the distance to the background."""

    enabled: bool = Field(False, description="cut them; else what hangs together is one object")
    halo_px: WholeTriple = Field(
        (8, 32, 32),
        description="voxels zyx around a block that it labels too: at least about the radius of "
        "an object",
    )
    smoothing_um: float = Field(
        1.0, ge=0, le=1000,
        description="Gaussian over the distance, sigma in micrometres (in voxels where their size "
        "is not known): more leaves fewer parts",
    )  # fmt: skip
    least_iou: float = Field(
        0.5, gt=0, le=1,
        description="labels of two blocks are one object where they share so much, intersection "
        "over union, of the voxels that both blocks labelled",
    )  # fmt: skip
    fill: bool = Field(
        False, description="objects grow over the boundaries between them until they meet"
    )

    @field_validator("halo_px")
    @classmethod
    def _some(cls, value: WholeTriple) -> WholeTriple:
        if min(value) < 1 or max(value) > 512:
            raise ValueError(f"a halo has 1 to 512 voxels along each axis, got {value}")
        return value


class PiecesConfig(Section):
    """How a volume is segmented that is full of objects, parted by thin sheets such as membranes.

    It is cut into small pieces, and those are joined between which little speaks for a sheet. The
    threshold of grey values is not used.
    """

    enabled: bool = Field(False, description="do so, in place of a threshold of grey values")
    sheets: Literal["dark", "bright"] = Field("dark", description="beside what they part")
    sheet_px: Triple = Field(
        (1.5, 1.5, 1.5),
        description="half the thickness of a sheet, zyx in voxels; the first is not used where "
        "sections are labelled one by one",
    )
    threshold: float = Field(
        0.9, ge=-10, le=10,
        description="pieces are joined whose boundary has no more evidence of a sheet, in "
        "standard deviations of all voxels: more leaves fewer, larger objects",
    )  # fmt: skip
    enclosed: float = Field(
        1.0, ge=0, le=10,
        description="so much less evidence counts where a boundary is all the surface of one of "
        "the two, as around a mitochondrion, and in proportion where it is a part",
    )  # fmt: skip

    @field_validator("sheet_px")
    @classmethod
    def _some(cls, value: Triple) -> Triple:
        if min(value) < 0.3 or max(value) > 30:
            raise ValueError(f"half a sheet has 0.3 to 30 voxels, got {value}")
        return value


class LinkConfig(Section):
    """How objects of neighbouring sections are linked, where sections are labelled one by one.

    For sections that do not lie exactly on one another, or are far apart: the flow between them
    says where each object goes on.
    """

    enabled: bool = Field(
        False, description="label every section by itself, and link objects through flow"
    )
    patch_px: int = Field(
        40, ge=16, le=512, description="patches that are compared, px: about an object's size"
    )
    stride_px: int = Field(10, ge=4, le=256, description="distance of mesh nodes, px")
    search_px: int = Field(
        24, ge=2, le=256, description="how far the tissue may have moved between two sections, px"
    )
    steps: int = Field(3, ge=0, le=10, description="refinement steps of the flow")
    least_iou: float = Field(
        0.15, gt=0, le=1,
        description="two objects are linked if each overlaps the other most, and at least so much, "
        "intersection over union",
    )  # fmt: skip
    least_return: float = Field(
        0.0, ge=0, le=1,
        description="share of what two objects have in common that the flow there and back must "
        "bring home; above 0 the flow is measured both ways, for twice the time",
    )  # fmt: skip
    gap: int = Field(
        2, ge=1, le=4,
        description="an object without a link is looked for so many sections further; 1: in the "
        "next one alone",
    )  # fmt: skip


class KeepConfig(Section):
    """Which objects stay, by the size of the whole object."""

    connectivity: Literal[6, 18, 26] = Field(
        6, description="voxels are one object across faces; 18: edges too; 26: corners too"
    )
    smallest: int = Field(0, ge=0, description="objects have more voxels than this")
    largest: int | None = Field(None, ge=1, description="objects have fewer voxels than this")


class LabelsConfig(Section):
    """How objects are stored."""

    name: str = Field("objects", description="of the label image")
    dense: bool = Field(
        False,
        description="number objects 1, 2, 3 …; else an object's id is that of its first part: the "
        "number of a block, times 2^32, and a number in that block",
    )
    with_image: bool = Field(
        True,
        description="copy the image beside its labels, so that both open as one; else the labels "
        "name it",
    )
    fan_out: int = Field(
        4, ge=2, le=16,
        description="so many blocks along each axis are joined by one worker, then so many of "
        "these regions, up to the whole volume",
    )  # fmt: skip

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.-]+", value) or value.startswith("."):
            raise ValueError("a name has letters, digits, '_', '-' and '.'")
        return value


class SegmentVolumeConfig(JobConfig):
    """A volume -> labels of its objects, and a table of them."""

    source_field: ClassVar[str] = "image"
    command: ClassVar[str | None] = "segment"

    image: str = Field(description="volume: OME-Zarr, Zarr, N5 or TIFF")
    input: VolumeImageConfig = VolumeImageConfig()  # type: ignore[assignment]
    threshold: GreyConfig = GreyConfig()
    watershed: WatershedConfig = WatershedConfig()
    pieces: PiecesConfig = PiecesConfig()
    link: LinkConfig = LinkConfig()
    objects: KeepConfig = KeepConfig()
    labels: LabelsConfig = LabelsConfig()

    @model_validator(mode="after")
    def _one_way(self) -> SegmentVolumeConfig:
        if self.pieces.enabled and self.watershed.enabled:
            raise ValueError("pieces.enabled and watershed.enabled are two ways: choose one")
        return self
