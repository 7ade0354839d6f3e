"""Settings of the job `register`."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from warpbeam.pipelines.config import JobConfig, Section, VolumeConfig

Triple = tuple[float, float, float]
Accuracy = Literal["dry", "low", "medium", "high"]

_ADAPTED = (
    "a chunk that is good already gets one less, and one that gets no better is tried again with "
    "high"
)


class VolumesConfig(Section):
    """What the two volumes are."""

    fixed_voxel_um: Triple | None = Field(
        None, description="zyx size of a fixed voxel in micrometres; else what the file says"
    )
    moving_voxel_um: Triple | None = Field(
        None, description="zyx size of a moving voxel; else what the file says, else as the fixed"
    )
    fixed_channel: int = Field(0, ge=0, description="channel of the fixed volume to compare")
    moving_channel: int = Field(0, ge=0, description="channel of the moving volume to compare")
    fixed_mask: str | None = Field(
        None, description="volume of the fixed one's shape; where it is 0 nothing is compared"
    )
    moving_mask: str | None = Field(None, description="the same for the moving volume")
    background: float | None = Field(None, description="grey value that means 'no data'")


class CoarseConfig(Section):
    """The first, linear map, from reduced volumes."""

    start: Literal["scan", "features", "moments", "physical"] = Field(
        "scan",
        description="scan: every shift of whole volumes is tried; features: bright and dark blobs "
        "are matched first, however the moving volume is turned; moments: centres of mass "
        "meet; physical: the corners of both volumes are one point",
    )
    initial: str | None = Field(
        None,
        description="a map to begin from, in place of the corners: JSON with a matrix of fixed to "
        "moving voxels (zyx), an ITK affine (.mat, .txt, .tfm), or landmarks of BigWarp (.csv); "
        "take start: physical with it unless it may be far off",
    )
    rotation_deg: float = Field(
        0.0, ge=0, le=180,
        description="largest turn about each axis that the scan tries, in steps of 6 degrees; "
        "turns of some degrees are found without",
    )  # fmt: skip
    model: Literal["none", "translation", "rigid", "similarity", "affine", "trsaa"] = Field(
        "affine",
        description="what the coarse map may be; trsaa frees it step by step, from translation to "
        "affine; none keeps the start",
    )
    least_score: float = Field(
        6.0, ge=0,
        description="a scan below so many standard deviations found nothing: unrelated volumes "
        "reach about 5",
    )  # fmt: skip


class LatticeConfig(Section):
    """The displacement that is solved for all chunks together."""

    stride_px: float = Field(
        8.0, ge=2, le=256,
        description="distance of nodes, shortest edges of a fixed voxel; at 8 the map takes 0.024 "
        "bytes per voxel",
    )  # fmt: skip
    bending_px: float = Field(
        60.0, gt=0, le=10_000,
        description="stiffness, same unit: bends of this wavelength are halved where matches are "
        "as good as one voxel; shorter follows more and takes more noise for signal",
    )  # fmt: skip
    window_px: float = Field(
        24.0, ge=6, le=512,
        description="width of what is compared in the last pass, same unit; the coarser passes "
        "look at 4/3 and twice as much",
    )  # fmt: skip
    search_px: float = Field(
        24.0, ge=0, le=512,
        description="how far the coarse map may be off anywhere, same unit; 0 leaves the search "
        "out",
    )  # fmt: skip
    finest: Literal[1, 2, 4] = Field(
        1, description="reduction at which the last pass compares: 2 is some times faster"
    )
    steps: int = Field(
        2, ge=1, le=10, description="passes on the finest level; the second gains a tenth"
    )
    retries: int = Field(
        2, ge=0, le=10,
        description="how often the coarse matches are repeated where windows correlate less than "
        "most, with ten times their weight, so that the field follows further there",
    )  # fmt: skip
    least_jacobian: float = Field(
        0.1, gt=0, lt=1, description="least volume of a cell beside that of the coarse map"
    )


class LandmarksConfig(Section):
    """Points that somebody placed in both volumes: links beside those that are measured."""

    file: str | None = Field(
        None, description="landmarks of BigWarp (.csv); what all matches around contradict loses"
    )
    error_px: float = Field(
        0.5, gt=0, le=100, description="how exactly they were placed, shortest edges of a fixed "
        "voxel",
    )  # fmt: skip


class ChunksConfig(Section):
    """What a worker looks at."""

    size_px: int = Field(
        128, ge=32, description="longest side of a chunk, fixed voxels; chunks are of equal size"
    )
    least_known: float = Field(
        0.0, ge=0, lt=1,
        description="a chunk of which masks leave a smaller share is left out; the field "
        "there is that of its neighbours",
    )  # fmt: skip


class DenseConfig(Section):
    """What all engines share that register chunks densely."""

    overlap_px: int = Field(
        16, ge=4, le=512, description="how far a chunk reaches into its neighbours, fixed voxels"
    )


class AntsConfig(DenseConfig):
    """How ANTs registers a chunk (engine: ants; needs the package antspyx)."""

    transform: Literal["SyNOnly", "SyN", "Elastic", "BSplineSyN"] = Field(
        "SyNOnly",
        description="model; SyN and Elastic fit an affine map to each chunk first, which ANTs "
        "samples at random, so that two runs differ; BSplineSyN has iterations of its own",
    )
    accuracy: Accuracy = Field(
        "medium",
        description="iterations on a quarter, half and the whole of the resolution: 1 0 0, "
        f"20 10 0, 40 20 0, 100 70 20; {_ADAPTED}",
    )
    metric: Literal["mattes", "CC"] = Field(
        "mattes", description="mutual information (32 bins), or local correlation (radius 2)"
    )


class GreedyConfig(DenseConfig):
    """How greedy registers a chunk (engine: greedy; needs the package picsl-greedy)."""

    accuracy: Accuracy = Field(
        "medium",
        description="iterations on a quarter, half and the whole of the resolution: 1 0 0, "
        f"40 20 0, 100 50 0, 100 70 20; {_ADAPTED}",
    )
    metric: Literal["NCC", "NMI", "SSD"] = Field(
        "NCC", description="local correlation, mutual information, or squared differences"
    )
    ncc_radius_px: int = Field(
        2, ge=1, le=16, description="half the width of what NCC compares, voxels of a level"
    )
    step_smoothing_px: float = Field(
        1.7, gt=0, le=32,
        description="Gaussian scale that smooths every step, voxels of a level",
    )  # fmt: skip
    warp_smoothing_px: float = Field(
        0.7, gt=0, le=32,
        description="Gaussian scale that smooths the sum of all steps after each, same unit",
    )  # fmt: skip


class ExportConfig(Section):
    """Maps for other programs."""

    itk: bool = Field(
        False, description="store transforms/warp.nii.gz and transforms/affine.mat for ITK and ANTs"
    )


class DrawConfig(Section):
    """How the moving volume is drawn in the frame of the fixed one."""

    interpolation: Literal["nearest", "linear", "cubic"] = Field(
        "linear", description="nearest for labels; integers stay integers"
    )
    background: float = Field(
        0.0, allow_inf_nan=False, description="grey value where there is no moving volume"
    )
    tiff: bool = Field(False, description="store the volume as volume.ome.tif too")


class RegisterConfig(JobConfig):
    """A moving volume -> the frame of a fixed one, and the map between them."""

    source_field: ClassVar[str] = "fixed"

    fixed: str = Field(description="volume that stays: TIFF, OME-TIFF, NIfTI, OME-Zarr, Zarr or N5")
    moving: str = Field(description="volume that is moved onto it")
    engine: Literal["match", "ants", "greedy", "none"] = Field(
        "match",
        description="match: chunks emit matches, and one field is solved from all of them; ants "
        "and greedy: coarse matches, then overlapping chunks by these, whose displacements are "
        "blended; none: the coarse map alone is drawn",
    )
    volumes: VolumesConfig = VolumesConfig()
    coarse: CoarseConfig = CoarseConfig()
    lattice: LatticeConfig = LatticeConfig()
    landmarks: LandmarksConfig = LandmarksConfig()
    chunks: ChunksConfig = ChunksConfig()
    ants: AntsConfig = AntsConfig()
    greedy: GreedyConfig = GreedyConfig()
    export: ExportConfig = ExportConfig()
    draw: DrawConfig = DrawConfig()
    volume: VolumeConfig = VolumeConfig()

    @model_validator(mode="after")
    def _no_tile_settings(self) -> RegisterConfig:
        """The settings of tile lists mean nothing for two volumes."""
        if self.input.model_fields_set:
            names = ", ".join(sorted(self.input.model_fields_set))
            raise ValueError(f"input.{names} is for tile lists; see the settings under volumes")
        return self


class RoundsConfig(RegisterConfig):
    """Several moving volumes onto one fixed one, each a run of `register` in OUTPUT/NAME."""

    command: ClassVar[str | None] = "register"

    moving: str = Field("", description="stays empty")
    rounds: dict[str, str] = Field(min_length=1, description="moving volumes by name")
    chosen: list[str] | None = Field(None, description="names of the rounds to do; null for all")

    @model_validator(mode="after")
    def _names_of_folders(self) -> RoundsConfig:
        """A round's name is that of its folder."""
        for name in self.rounds:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"rounds: {name!r} cannot be a folder's name")
        for name in self.chosen or ():
            if name not in self.rounds:
                raise ValueError(f"chosen: {name!r} is none of the rounds {sorted(self.rounds)}")
        if self.moving:
            raise ValueError("moving: the moving volumes are those under rounds")
        return self

    def round(self, name: str) -> RegisterConfig:
        """The settings of one round, which may as well run by itself."""
        values = self.model_dump(exclude={"rounds", "chosen"}, exclude_unset=True)
        places = {"moving": self.rounds[name], "output": f"{self.output.rstrip('/')}/{name}"}
        return RegisterConfig.model_validate(values | places)


class ApplyConfig(JobConfig):
    """Another volume in the place of a registered one -> the frame of the fixed one."""

    source_field: ClassVar[str] = "moving"
    command: ClassVar[str | None] = "register"

    moving: str = Field(description="another channel, or labels, of the moving volume")
    registration: str = Field(description="folder of the run of `warpbeam register`")
    draw: DrawConfig = DrawConfig()
