"""What presets, `mesh.skip`, `flow.contrast` and `render.contrast` change in `align`."""

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from running import ALIGNED, align, pixels
from stacks import make_stack, write_stack

from warpbeam.pipelines import align as job
from warpbeam.pipelines.align_config import AlignConfig
from warpbeam.pipelines.settings import load
from warpbeam.transforms.align.frame import clean_uri, load_frame
from warpbeam.transforms.storage import fields, tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("stack"), make_stack(4, (128, 144)))


def configured(folder, **settings):
    given = {"sections": "sections", "output": "out", **settings}
    (folder / "job.yaml").write_text(yaml.safe_dump(given))
    return load(AlignConfig, str(folder / "job.yaml"), {})


@pytest.mark.parametrize(
    ("preset", "flow", "bending_px"),
    [
        ("em_2d", (160, 40, (1, 2), (1, 2)), 160.0),
        ("em_2d_fast", (48, 80, (4,), (1,)), 240.0),
        ("em_3d", (60, 20, (1,), (1,)), 90.0),
        ("liconn", (80, 40, (2, 4), (1, 2)), 240.0),
    ],
)
def test_a_preset_fills_in_what_is_not_set(tmp_path, preset, flow, bending_px):
    found = configured(tmp_path, preset=preset)
    assert (found.flow.patch_px, found.flow.stride_px, found.flow.scales, found.flow.gaps) == flow
    assert found.mesh.bending_px == bending_px
    given = configured(tmp_path, preset=preset, flow={"patch_px": 64}, mesh={"spring": 0.5})
    assert (given.flow.patch_px, given.flow.stride_px) == (64, flow[1])
    assert (given.mesh.spring, given.mesh.bending_px) == (0.5, bending_px)


def test_an_unknown_preset_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match="'em_2d', 'em_2d_fast', 'em_3d' or 'liconn'"):
        configured(tmp_path, preset="em_4d")


def test_the_job_works_with_the_values_of_its_preset(stack, tmp_path):
    """That of em_3d: nodes at 20 px, one scale, and no rough placement."""
    given = {"preset": "em_3d", "run": {"workers": 1}}
    config = AlignConfig(sections=str(stack), output=str(tmp_path / "out"), **given)
    assert job.run(config, stages=["convert", "frame"]).exit_code == 0
    frame = load_frame(RunFolder(config.output))
    assert (frame.settings.stride, frame.settings.scales) == (20, (1,))
    assert frame.lattice.stride == (20.0, 20.0)


@pytest.mark.parametrize(
    ("skip", "expected"),
    [((), {0: [], 1: [0], 2: [1, 0], 3: [2, 1]}), ((1,), {0: [], 1: [0], 2: [0], 3: [2]})],
)
def test_nothing_is_aligned_to_a_skipped_section(stack, tmp_path, skip, expected):
    """It is aligned itself."""
    align(
        stack, tmp_path / "out", flow={"gaps": (1, 2), "bridges": ()}, mesh={"skip": skip},
        rough={"model": "none"}, volume={"pyramid": False}, run={"workers": 1},
    )  # fmt: skip
    rows = tables.read(str(tmp_path / "out" / "sections.parquet"))
    assert {row["section"]: row["references"] for row in rows} == expected


def shaded(folder):
    """Two sections, the second one moved by 3 and 2 px, under one shade five times as strong."""
    rng = np.random.default_rng(5)
    tissue, shade = (
        cv2.GaussianBlur(rng.normal(size=(176, 176)), (0, 0), width) for width in (2, 28)
    )
    for z, image in enumerate((tissue, np.roll(tissue, (3, 2), (0, 1)))):
        seen = 1000 * image / tissue.std() + 5000 * shade / shade.std() + 30000
        tifffile.imwrite(folder / f"sec_{z:03d}.tif", np.clip(seen, 0, 65535).astype(np.uint16))
    return folder


def test_contrast_shows_what_moves_under_a_shade_that_does_not(tmp_path):
    (tmp_path / "in").mkdir()
    sections = shaded(tmp_path / "in")
    found = {}
    for contrast in ("none", "local", "clahe"):
        flow = {"contrast": contrast, "gaps": (1,), "bridges": ()}
        align(sections, tmp_path / contrast, stages=["convert", "frame", "flow", "clean"],
              flow=flow, rough={"model": "none"}, run={"workers": 1})  # fmt: skip
        run = RunFolder(str(tmp_path / contrast))
        frame = load_frame(run)
        vectors = fields.load(clean_uri(run)).read(frame.nodes(1, (1, 2)))[0, :, 0]
        found[contrast] = vectors[:, np.isfinite(vectors).all(axis=0)]
    inside = ((176 - ALIGNED["flow"]["patch_px"]) // ALIGNED["flow"]["stride_px"]) ** 2
    assert found["none"].shape[1] < 0.2 * inside
    for contrast, share in (("local", 0.9), ("clahe", 0.6)):
        assert found[contrast].shape[1] > share * inside
        np.testing.assert_allclose(np.median(found[contrast], axis=1), (-3, -2), atol=0.3)


@pytest.mark.parametrize("contrast", ["local", "clahe"])
def test_shards_of_any_size_draw_the_same_contrast(stack, tmp_path, contrast):
    drawn = {}
    for side in (64, 128):
        align(
            stack, tmp_path / str(side), render={"contrast": contrast, "contrast_px": 32},
            volume={"pyramid": False, "shard_3d": (16, side, side)}, run={"workers": 1},
        )  # fmt: skip
        drawn[side] = pixels(tmp_path / str(side)).astype(int)
    apart = np.abs(drawn[64] - drawn[128])
    assert (apart > 1).mean() < 1e-3
    align(stack, tmp_path / "plain", volume={"pyramid": False}, run={"workers": 1})
    plain = pixels(tmp_path / "plain")
    assert ((plain == 0) == (drawn[64] == 0)).mean() > 0.99
    inside = (slice(None), slice(None), slice(None), slice(40, 90), slice(40, 100))
    found = np.corrcoef(drawn[64][inside].ravel(), plain[inside].ravel())[0, 1]
    assert 0.5 < found < 0.98
