"""A job's graph: what a changed setting makes anew."""

import pytest
from phantoms import write_mosaic

from warpbeam.pipelines.config import FuseConfig, StitchConfig
from warpbeam.pipelines.fuse import FuseJob
from warpbeam.pipelines.settings import load
from warpbeam.pipelines.stitch import StitchJob


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_mosaic(tmp_path_factory.mktemp("graph") / "tiles", rows=2, columns=2)


def hashes(kind, model, tiles, **settings):
    job = kind(load(model, None, {"tiles": str(tiles), "output": "out", **settings}))
    return {stage.name: stage.ledger.config_hash for stage in job.graph().stages}


def changed(kind, model, tiles, setting, value):
    before, after = hashes(kind, model, tiles), hashes(kind, model, tiles, **{setting: value})
    return {name for name in before if before[name] != after.get(name)}


def test_stages_come_in_order(tiles):
    names = list(hashes(StitchJob, StitchConfig, tiles))
    wanted = ["convert", "link", "null", "solve", "canvas", "fuse"]
    assert [n for n in names if n in wanted] == wanted
    assert set(hashes(FuseJob, FuseConfig, tiles)) <= set(names)


@pytest.mark.parametrize(
    ("setting", "value", "redone", "kept"),
    [
        ("blend.mode", "max", "fuse", "canvas"),
        ("volume.compression", 3, "canvas", "solve"),
        ("solve.model", "affine", "link", "convert"),
        ("solve.stage_sigma_px", 3.0, "solve", "null"),
        ("link.search_px", 9, "link", "convert"),
    ],
)
def test_a_setting_redoes_what_depends_on_it(tiles, setting, value, redone, kept):
    found = changed(StitchJob, StitchConfig, tiles, setting, value)
    assert redone in found
    assert "fuse" in found  # everything after it
    assert kept not in found


def test_how_the_work_is_done_redoes_nothing(tiles):
    assert changed(FuseJob, FuseConfig, tiles, "run.attempts", 9) == set()


def test_every_stage_depends_on_the_list_but_not_on_the_time_of_a_file(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=2)
    before = hashes(FuseJob, FuseConfig, tiles)
    image = tmp_path / "tiles" / "t_0_0.tif"
    image.write_bytes(image.read_bytes())
    assert hashes(FuseJob, FuseConfig, tiles) == before
    tiles.write_text(tiles.read_text().replace("80", "79"))
    (tmp_path / "tiles" / "t_0_80.tif").rename(tmp_path / "tiles" / "t_0_79.tif")
    after = hashes(FuseJob, FuseConfig, tiles)
    assert all(after[name] != before[name] for name in before)
