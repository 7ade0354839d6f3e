"""Configuration: strict, helpful, and honest about what decides the result."""

import pytest
import yaml
from pydantic import ValidationError

from warpbeam.pipelines.align_config import AlignConfig
from warpbeam.pipelines.config import (
    BlendConfig,
    FuseConfig,
    StitchConfig,
    VolumeConfig,
)
from warpbeam.pipelines.register_config import RegisterConfig
from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.pipelines.settings import field_names, load, parse_settings
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
from warpbeam.transforms.storage.errors import InputError

GIVEN = {"tiles": "t.csv", "output": "out"}


def test_settings_win_over_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**GIVEN, "blend": {"mode": "max", "interpolation": "cubic"}}))
    config = load(StitchConfig, str(path), {"blend.mode": "mean", "output": "elsewhere"})
    assert (config.blend.mode, config.blend.interpolation) == ("mean", "cubic")
    assert config.output == "elsewhere"


def test_a_jobs_own_defaults_stay_beside_what_is_given():
    fuse = load(FuseConfig, None, {**GIVEN, "shading.gain": "gain"})
    assert (fuse.shading.flatfield, fuse.shading.gain) == ("off", "gain")
    align = load(AlignConfig, None, {"sections": "s", "output": "out", "volume.compression": 3})
    assert (align.volume.shard_3d, align.volume.compression) == ((32, 1024, 1024), 3)
    both = load(
        AlignConfig, None,
        {"sections": "s", "output": "out", "preset": "em_3d", "mesh.bending_px": 77},
    )  # fmt: skip
    plain = load(AlignConfig, None, {"sections": "s", "output": "out", "preset": "em_3d"})
    assert both.mesh == plain.mesh.model_copy(update={"bending_px": 77})


def test_values_are_read_as_yaml():
    given = parse_settings(["volume.shard_2d=[512, 1024]", "solve.model=affine", "run.workers=3",
                            "input.voxel_um=0.25", "volume.pyramid=false"])  # fmt: skip
    assert given == {"volume.shard_2d": [512, 1024], "solve.model": "affine", "run.workers": 3,
                     "input.voxel_um": 0.25, "volume.pyramid": False}  # fmt: skip
    config = load(StitchConfig, None, {**GIVEN, **given})
    assert config.volume.shard_2d == (512, 1024)


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("database.url", "off", "off"),
        ("select.timepoints", "0", "0"),
        ("select.wells", "A1", "A1"),
        ("select.experiment", "20240131", "20240131"),
        ("select.experiment", "2024-01-31", "2024-01-31"),
        ("threshold.channel", "007", "007"),
        ("threshold.channel", "no", "no"),
        ("threshold.channel", "null", None),
        ("puncta.channels", "[1, GFP, 02]", ("1", "GFP", "02")),
        ("masks.tiff", "off", False),
        ("run.workers", "3", 3),
        ("select.experiment", "12:30.5", "12:30.5"),
        ("puncta.fine_px", "1.5", 1.5),
        ("puncta.fine_px", "1e-1", 0.1),
        ("input.pattern", "{well}_T{timepoint}.tif", "{well}_T{timepoint}.tif"),
        ("input.pattern", "'{well}.tif'", "{well}.tif"),
    ],
)
def test_text_needs_no_quotes(tmp_path, field, text, expected):
    """Neither on the command line nor, but for braces, in a job file."""
    section, name = field.split(".")
    given = {"plate": "p.csv", "output": "out"}
    config = load(SegmentConfig, None, given | parse_settings([f"{field}={text}"]))
    assert getattr(getattr(config, section), name) == expected
    if not text.startswith("{"):
        path = tmp_path / "job.yaml"
        path.write_text(f"plate: p.csv\noutput: out\n{section}:\n  {name}: {text}\n")
        assert load(SegmentConfig, str(path), {}) == config


@pytest.mark.parametrize("size", ["0", "-1", ".inf", "[1, 0, 1]"])
@pytest.mark.parametrize(
    ("model", "name", "given"),
    [
        (StitchConfig, "input.voxel_um", GIVEN),
        (SegmentVolumeConfig, "input.voxel_um", {"image": "i.tif", "output": "out"}),
    ],
)
def test_voxels_have_a_size(model, name, given, size):
    with pytest.raises(InputError, match="bad value"):
        load(model, None, given | parse_settings([f"{name}={size}"]))


def test_some_object_has_the_size_that_is_wanted():
    given = {"plate": "p.csv", "output": "out", "objects.smallest": 60, "objects.largest": 61}
    with pytest.raises(InputError, match="bad value"):
        load(SegmentConfig, None, given)


def test_a_list_that_is_not_closed_is_refused():
    with pytest.raises(InputError, match="bad value"):
        load(StitchConfig, None, {**GIVEN, **parse_settings(["volume.shard_2d=[512, 1024"])})


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("blend.mod", "blend.mode"),
        ("mode", "blend.mode"),
        ("serch_px", "link.search_px"),
        ("volume.shard2d", "volume.shard_2d"),
        ("solve.modle", "solve.model"),
    ],
)
def test_the_nearest_setting_is_named(given, near):
    with pytest.raises(InputError) as caught:
        load(StitchConfig, None, {**GIVEN, given: "x"})
    assert caught.value.expected == f"{near}?"


def test_a_setting_of_another_job_is_unknown():
    with pytest.raises(InputError) as caught:
        load(FuseConfig, None, {**GIVEN, "link.search_px": 3})
    assert caught.value.where.startswith("link")
    assert caught.value.expected == "one of the settings of this job"


def test_configurations_are_frozen():
    config = FuseConfig(**GIVEN)
    with pytest.raises(ValidationError):
        config.output = "x"
    with pytest.raises(ValidationError):
        config.blend.mode = "max"


def test_how_the_work_is_done_is_no_part_of_the_result():
    plain = StitchConfig(**GIVEN).result_settings()
    other = load(StitchConfig, None, {"tiles": "x", "output": "y", "run.workers": 7,
                                      "run.attempts": 1}).result_settings()  # fmt: skip
    assert plain == other
    assert load(StitchConfig, None, {**GIVEN, "blend.mode": "max"}).result_settings() != plain


@pytest.mark.parametrize("shard", [(100, 64), (0, 64), (32, 32)])
def test_shards_hold_whole_chunks(shard):
    with pytest.raises(ValidationError, match="whole chunks"):
        VolumeConfig(chunk_2d=(64, 64), shard_2d=shard)


def test_a_margin_needs_weights():
    for mode in ("max", "closest", "multiband"):
        with pytest.raises(ValidationError, match="not for " + mode):
            BlendConfig(mode=mode, margin_px=5)
        assert BlendConfig(mode=mode).margin_px == 0


def test_every_field_is_described():
    for model in (StitchConfig, FuseConfig):
        assert len(list(field_names(model))) > 20
        for section in model.model_fields.values():
            assert section.description or section.annotation.__doc__
            for field in getattr(section.annotation, "model_fields", {}).values():
                assert field.description


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (AlignConfig, {"sections": "a"}),
        (RegisterConfig, {"fixed": "a", "moving": "b"}),
    ],
)
def test_jobs_without_tiles_refuse_to_count_them(model, given):
    with pytest.raises(InputError, match="counts tiles"):
        load(model, None, {**given, "output": "c", "volume.coverage": True})
