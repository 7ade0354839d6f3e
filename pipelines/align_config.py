"""Settings of the job `align`, and presets that hold the field's habits, each with its reason."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from warpbeam.pipelines.config import JobConfig, Presets, Section, VolumeConfig


class RoughConfig(Section):
    """The first placement of the sections: one matrix each, from whole images."""

    model: Literal["none", "translation", "rigid", "affine"] = Field(
        "rigid", description="what may happen to a section; none: they are nearly aligned"
    )
    method: Literal["auto", "sift", "ncc"] = Field(
        "auto",
        description="correlation over all shifts and turns, or keypoints; auto: correlation, and "
        "keypoints where it finds nothing",
    )
    longest_px: int = Field(
        512, ge=64, le=8192, description="sections are reduced to about this size, px"
    )
    gaps: int = Field(
        3, ge=1, le=10,
        description="sections are compared over so many, so that one bad pair breaks nothing",
    )  # fmt: skip
    rotation_deg: float = Field(
        10.0, ge=0, le=180, description="largest turn between neighbours that ncc looks for"
    )


class ExclusionConfig(Section):
    """Pixels that are not compared, by the values of a channel."""

    channel: int = Field(0, ge=0, description="whose values count; a mask may be a channel")
    values: tuple[int | float, ...] = Field((), description="grey values, or labels of a mask")
    below: float | None = Field(None, description="what is less")
    above: float | None = Field(None, description="what is more")
    invert: bool = Field(False, description="exclude all others instead")
    grow_px: int = Field(0, ge=0, le=512, description="exclude so far around them too, px")
    cuts: bool = Field(
        False,
        description="the mesh is cut there, so that the tissue on either side of a crack moves by "
        "itself; not for dirt, which moves with it",
    )  # fmt: skip

    @model_validator(mode="after")
    def _says_something(self) -> ExclusionConfig:
        if not self.values and self.below is None and self.above is None:
            raise ValueError("needs values, below or above")
        return self


class FlowConfig(Section):
    """How neighbouring sections are compared, patch by patch."""

    channel: int = Field(0, ge=0, description="the channel that is compared")
    background: float | None = Field(
        None, description="grey value that means 'no data', such as 0 around a montage"
    )
    exclude: tuple[ExclusionConfig, ...] = Field(
        (), description="pixels that are not compared, a rule for each reason: folds, dirt, resin"
    )
    contrast: Literal["none", "local", "clahe"] = Field(
        "none",
        description="even out contrast before sections are compared: by local mean and deviation, "
        "or by adaptive histogram equalisation",
    )
    scales: tuple[int, ...] = Field(
        (1, 2),
        description="reductions of the images (1: none), the one to trust most first; the others "
        "fill in where it finds nothing",
    )
    patch_px: int = Field(160, ge=16, le=1024, description="side of a patch, px of the reduction")
    stride_px: int = Field(40, ge=2, le=1024, description="distance of nodes, px of the section")
    search_px: int = Field(
        40, ge=2, le=512, description="how far a patch is looked for, px of the reduction"
    )
    steps: int = Field(1, ge=0, le=5, description="refinements; 0 keeps rigid patches")
    every: int = Field(
        1, ge=1, le=4,
        description="patches are searched for at every so many-th node; the others are refined "
        "from their neighbours, which is faster where patches overlap much",
    )  # fmt: skip
    gaps: tuple[int, ...] = Field((1, 2), description="distances of the sections compared")
    bridges: tuple[int, ...] = Field(
        (3, 4), description="further distances, where none of `gaps` gave a vector"
    )
    bridge_above: float = Field(
        0.05, ge=0, le=1,
        description="share of a section without a vector above which `bridges` are measured",
    )  # fmt: skip
    min_peak_ratio: float = Field(
        1.3, ge=1, description="best peak of a patch over its second; lower is ambiguous"
    )
    min_sharpness: float = Field(
        0, ge=0,
        description="best peak of a patch over the least value around it; lower is blurred; 0: any",
    )  # fmt: skip
    min_correlation: float = Field(
        0, ge=0, le=1,
        description="correlation of a patch where it fits best; what is less alike is not "
        "believed, however clear the peak; 0: any",
    )  # fmt: skip
    max_magnitude_px: float = Field(
        0, ge=0,
        description="a vector may differ so much from the median of its section, px; 0: any",
    )  # fmt: skip
    max_deviation_px: float = Field(
        10.0, gt=0, description="a vector may differ so much from the median around it, px"
    )
    max_gradient_px: float = Field(
        0, ge=0,
        description="vectors of two neighbouring nodes may differ so much, px, or both are "
        "dropped; 0: any",
    )  # fmt: skip
    min_gap: int = Field(
        0, ge=0,
        description="flow over fewer sections is of the first of `scales` alone, which no other "
        "fills in; 0: the others fill in everywhere",
    )  # fmt: skip
    min_component: int = Field(
        4, ge=1, description="nodes of a connected piece of flow; smaller ones are dropped"
    )
    block_px: int = Field(
        2560, ge=256, description="side of the area that a worker measures, px of the reduction"
    )

    @model_validator(mode="after")
    def _sensible(self) -> FlowConfig:
        for name in ("scales", "gaps"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise ValueError(f"{name} must be some positive numbers, each once, got {values}")
        if any(k & (k - 1) for k in self.scales):
            raise ValueError(f"scales must be powers of two, got {self.scales}")
        if set(self.gaps) & set(self.bridges) or min((*self.bridges, 1)) < 1:
            raise ValueError(f"bridges {self.bridges} must be positive and not among the gaps")
        return self


class MeshConfig(Section):
    """How flow becomes one smooth map per section."""

    bending_px: float = Field(
        160.0, gt=0, description="stiffness: a bend of this wavelength is followed by half"
    )
    spring: float = Field(0.0, ge=0, description="springs towards the section's own shape")
    block_sections: int = Field(50, ge=2, description="sections of a block along z")
    least_known: float = Field(
        0.1, gt=0, le=1, description="share of the nodes that need flow, or a section is bad"
    )
    most_scatter_px: float = Field(
        6.0, gt=0, description="a section whose flow scatters more about its mesh is bad, px"
    )
    least_stretch: float = Field(
        0.5, ge=0, lt=1,
        description="neighbouring nodes that come closer, as a share of their distance, are a fold",
    )  # fmt: skip
    most_stretch: float = Field(
        2.0, gt=1, description="neighbouring nodes that move further apart, likewise, are one too"
    )
    fold_radius: int = Field(
        3, ge=0,
        description="nodes around a fold whose flow is believed less when a section is solved "
        "again; twice as many the second time, and so on; the last time all",
    )  # fmt: skip
    fold_weight: float = Field(
        0.1, gt=0, le=1, description="factor of the weight of the flow around a fold, each time"
    )
    fold_retries: int = Field(3, ge=0, le=20, description="how often a section is solved again")
    skip: tuple[int, ...] = Field((), description="sections that no other is aligned to")
    anchor: int | None = Field(
        None, description="the section that stays as it is, in whose frame all others are drawn"
    )
    steady_drift: bool = Field(
        True, description="take out again what whole sections drift steadily: tissue cut obliquely"
    )
    drift_sections: int = Field(
        20, ge=0,
        description="take bends that vary slowly over so many sections out again; 0: keep them",
    )  # fmt: skip


class RenderConfig(Section):
    """How the aligned sections are drawn."""

    interpolation: Literal["nearest", "linear", "cubic", "lanczos"] = Field(
        "linear", description="how a section is sampled"
    )
    background: float = Field(
        0.0, allow_inf_nan=False, description="grey value where there is no section"
    )
    contrast: Literal["none", "local", "clahe"] = Field(
        "none",
        description="even out contrast of what is drawn: by local mean and deviation, or by "
        "adaptive histogram equalisation to 256 values",
    )
    contrast_px: int = Field(
        256, ge=16, description="size of the neighbourhoods over which contrast is evened out, px"
    )


# What differs from the defaults above, which are those of em_2d.
PRESETS: Presets = {
    # Thin sections, 4-10 nm in plane, 30-50 nm apart: 160 px hold some dozen membranes; content
    # changes within two sections.
    "em_2d": {},
    # The same at a quarter of the resolution and half the nodes: a patch sees the same membranes,
    # blurred to 16-40 nm, which still places them to a tenth of a reduced pixel.
    "em_2d_fast": {
        "flow": {
            "patch_px": 48,
            "stride_px": 80,
            "search_px": 16,
            "scales": (4,),
            "every": 2,
            "gaps": (1,),
            "bridges": (2, 3),
        },
        "mesh": {"bending_px": 240.0},
        "rough": {"model": "translation", "longest_px": 512, "gaps": 2},
    },
    # Block face images with isotropic voxels: neighbours look alike, so that a match which
    # correlates is right however ambiguous its peak. What is left is the tissue's own motion from
    # plane to plane: it is averaged out best by many small patches, and half as large over one
    # section as over two.
    "em_3d": {
        "flow": {
            "patch_px": 60,
            "stride_px": 20,
            "search_px": 30,
            "scales": (1,),
            "every": 2,
            "gaps": (1,),
            "bridges": (2, 3),
            "min_peak_ratio": 1.0,
            "min_correlation": 0.3,
        },
        "mesh": {"bending_px": 90.0, "drift_sections": 10},
        "rough": {"model": "none"},
    },
    # Expanded tissue in the light microscope: soft, sparse, blurred structures; larger bends, and
    # noise that asks for reduced images.
    "liconn": {
        "flow": {"patch_px": 80, "stride_px": 40, "search_px": 40, "scales": (2, 4)},
        "mesh": {"bending_px": 240.0},
    },
}


class AlignConfig(JobConfig):
    """A stack of serial sections -> one aligned volume and a map per section."""

    source_field: ClassVar[str] = "sections"
    presets: ClassVar[Presets] = PRESETS

    sections: str = Field(description="folder of images, a volume, or a list of sections")
    preset: Literal["em_2d", "em_2d_fast", "em_3d", "liconn"] = Field(
        "em_2d", description="defaults for a kind of data; what is set beside it wins"
    )
    first_section: int | None = Field(None, description="number of the first section to align")
    last_section: int | None = Field(
        None, description="number of the last one; with `first_section`, a range by itself"
    )
    redone: tuple[str, ...] = Field(
        (),
        description="folders of runs that aligned a range of these sections again, with other "
        "settings: its maps are taken, but for those of its first and last section, which hold it "
        "where the stack goes on",
    )  # fmt: skip
    time: int | None = Field(None, description="which time to align, where there are several")
    rough: RoughConfig = RoughConfig()
    flow: FlowConfig = FlowConfig()
    mesh: MeshConfig = MeshConfig()
    render: RenderConfig = RenderConfig()
    volume: VolumeConfig = VolumeConfig(chunk_3d=(16, 128, 128), shard_3d=(32, 1024, 1024))


class ApplyStackConfig(JobConfig):
    """Other sections in the place of those that were aligned -> the aligned frame."""

    source_field: ClassVar[str] = "sections"
    command: ClassVar[str | None] = "align"

    sections: str = Field(description="labels, or another channel, of the same sections")
    alignment: str = Field(description="folder of the run of `warpbeam align`")
    time: int | None = Field(None, description="which time to draw, where there are several")
    scale: float = Field(
        1.0, ge=1 / 64, le=64,
        description="pixels of these sections along one of those that were aligned: 4 where a "
        "reduced copy was aligned, 0.5 for labels of half the resolution",
    )  # fmt: skip
    render: RenderConfig = RenderConfig()
