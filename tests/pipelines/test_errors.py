"""Bad input: an error in four parts and status 2, before anything is written."""

import csv
import re

import numpy as np
import pytest
import tifffile
from phantoms import write_list, write_mosaic, write_tiff

from warpbeam.pipelines import cli

PARTS = ("where:", "expected:", "got:", "to do:")
HERE = ["--set", "volume.shard_2d=[64,64]", "--set", "volume.chunk_2d=[32,32]", "--quiet"]


def rows_of(tiles):
    with tiles.open() as stream:
        return list(csv.DictReader(stream))


def rewrite(tiles, change):
    rows = rows_of(tiles)
    change(rows)
    return write_list(tiles, rows)


@pytest.fixture
def tiles(tmp_path):
    return write_mosaic(tmp_path / "tiles", rows=2, columns=2, tile=48, step=32)


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must be refused; returns the error."""

    def call(*arguments, output=tmp_path / "out", absent=True):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert status == 2, said
        for part in PARTS:
            assert len(re.findall(rf"^  {part}\s+\S", said.err, re.M)) == 1, said.err
        assert len(said.err.splitlines()) >= 5
        assert "Traceback" not in said.err
        assert not absent or not output.exists()
        return said.err

    return call


@pytest.fixture(params=["fuse", "stitch"])
def job(request):
    return request.param


def test_a_missing_tile(tiles, tmp_path, refused, job):
    (tmp_path / "tiles" / "t_32_0.tif").unlink()
    assert "t_32_0.tif" in refused(job, tiles, tmp_path / "out", *HERE)


def test_a_missing_list(tmp_path, refused, job):
    assert "none.csv" in refused(job, tmp_path / "none.csv", tmp_path / "out")


def test_an_unreadable_image(tiles, tmp_path, refused, job):
    (tmp_path / "tiles" / "t_32_0.tif").write_bytes(b"this is no image" * 10)
    assert "t_32_0.tif" in refused(job, tiles, tmp_path / "out", *HERE)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_image(tmp_path, refused, job, compression):
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=2, compression=compression)
    bad = tmp_path / "tiles" / "t_80_80.tif"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    error = refused(job, tiles, tmp_path / "out", *HERE)
    assert "truncated" in error or "cannot be read" in error
    assert "t_80_80.tif" in error


def test_two_dtypes(tiles, tmp_path, refused, job):
    write_tiff(tmp_path / "tiles" / "t_32_32.tif", np.zeros((48, 48), np.uint8))
    error = refused(job, tiles, tmp_path / "out", *HERE)
    assert "uint8" in error
    assert "uint16" in error


def test_an_unknown_column(tiles, tmp_path, refused, job):
    rewrite(tiles, lambda rows: [r.update(chanel=1) for r in rows])
    error = refused(job, tiles, tmp_path / "out", *HERE)
    assert "chanel" in error
    assert "channel" in error


def test_a_duplicate_tile(tiles, tmp_path, refused, job):
    rewrite(tiles, lambda rows: rows.append(rows[0]))
    assert "duplicate" in refused(job, tiles, tmp_path / "out", *HERE)


@pytest.mark.parametrize("value", ["nan", "inf", "", "twelve"])
def test_a_position_that_is_no_number(tiles, tmp_path, refused, job, value):
    rewrite(tiles, lambda rows: rows[2].update(y=value))
    assert "row 3" in refused(job, tiles, tmp_path / "out", *HERE)


def test_no_overlap(tmp_path, refused):
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=2, tile=48, step=80)
    assert "overlap" in refused("stitch", tiles, tmp_path / "out", *HERE)


def test_an_output_with_files_of_others(tiles, tmp_path, refused, job):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        error = refused(job, tiles, tmp_path / "out", *HERE, *more, absent=False)
        assert "did not write" in error
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_output_that_cannot_be_written(tiles, refused, job):
    assert "the output cannot be written" in refused(job, tiles, "/proc/out", *HERE, absent=False)


def test_an_output_of_another_run(tiles, tmp_path, refused, capsys):
    done = ["fuse", str(tiles), str(tmp_path / "out"), *HERE]
    assert cli.main(done) == 0
    capsys.readouterr()
    error = refused(*done, "--set", "blend.mode=max", absent=False)
    assert "blend.mode" in error
    assert "--overwrite" in error
    rewrite(tiles, lambda rows: rows[0].update(y=1))
    assert "tiles" in refused(*done, absent=False)
    assert cli.main([*done, "--overwrite"]) == 0


def test_a_plan_that_needs_too_much_memory(tiles, tmp_path, refused, job):
    error = refused(job, tiles, tmp_path / "out", *HERE, "--set", "run.worker_memory_gb=0.1")
    assert "0.1 GB" in error
    assert "shard" in error
    assert "0.1 GB" in refused("plan", job, tiles, *HERE[:4], "--set", "run.worker_memory_gb=0.1")


def test_an_unknown_setting(tiles, tmp_path, refused, job):
    for given, near in (("blend.mod=max", "blend.mode?"), ("volume.shrad_2d=[64,64]", "shard_2d")):
        assert near in refused(job, tiles, tmp_path / "out", "--set", given)


@pytest.mark.parametrize(
    "setting",
    ["blend.mode=lineer", "volume.compression=99", "volume.shard_2d=[100,64]", "blend.mode",
     "run.workers=many"],
)  # fmt: skip
def test_a_bad_value(tiles, tmp_path, refused, job, setting):
    error = refused(job, tiles, tmp_path / "out", "--set", setting)
    assert setting.split("=")[0].split(".")[0] in error


def test_an_unknown_stage(tiles, tmp_path, refused, job):
    error = refused(job, tiles, tmp_path / "out", *HERE, "--stages", "convert,fuze")
    assert "fuze" in error
    assert "fuse" in error


def test_a_stage_before_its_time(tiles, tmp_path, refused, job):
    error = refused(job, tiles, tmp_path / "out", *HERE, "--stages", "fuse")
    assert "canvas" in error or "solve" in error


def test_an_unknown_option_of_beam(tiles, tmp_path, refused, job):
    error = refused(job, tiles, tmp_path / "out", *HERE, "--", "--direct_num_worker=2")
    assert "--direct_num_workers?" in error


def test_a_bad_value_for_beam(tiles, tmp_path, refused, job):
    error = refused(job, tiles, tmp_path / "out", *HERE, "--", "--direct_num_workers=two")
    assert "two" in error


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["stich", "a", "b"], "stitch?"),
        (["fuse", "a", "b", "--overwrit"], "--overwrite?"),
        (["explain", "fuze"], "fuse?"),
        (["explain", "fuse", "--shema"], "--schema?"),
        ([], "--help"),
    ],
)
def test_an_unknown_command_or_option(refused, words, near):
    assert near in refused(*words)


def test_a_channel_that_is_not_there(tiles, tmp_path, refused):
    assert "0 to 0" in refused("stitch", tiles, tmp_path / "out", *HERE, "--set", "link.channel=1")


@pytest.fixture
def sections(tmp_path):
    folder = tmp_path / "sections"
    folder.mkdir()
    for k in range(3):
        write_tiff(folder / f"s{k}.tif", np.full((200, 200), k, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("render.background=-1", "from 0 to 255"),
        ("render.background=77.6", "whole number"),
        ("render.background=.nan", "finite"),
        ("mesh.skip=[99]", "sections 0 to 2"),
        ("flow.patch_px=300", "at most 200 px"),
    ],
)
def test_settings_that_fit_no_section(sections, tmp_path, refused, setting, word):
    assert word in refused("align", sections, tmp_path / "out", "--set", setting)


def test_an_output_that_is_a_file(sections, tmp_path, refused):
    (tmp_path / "file").write_text("mine")
    assert "a file" in refused("align", sections, tmp_path / "file", output=tmp_path / "none")
    assert (tmp_path / "file").read_text() == "mine"


def test_patches_that_no_overlap_holds(tiles, tmp_path, refused):
    settings = ["--set", "elastic.enabled=true", "--set", "elastic.patch_px=128"]
    error = refused("stitch", tiles, tmp_path / "out", *HERE, *settings)
    assert "larger than the overlaps" in error


def test_lanczos_of_volumes(tmp_path, refused, job):
    rows = []
    for k in range(2):
        tifffile.imwrite(
            tmp_path / f"{k}.tif", np.ones((8, 40, 40), np.uint8), metadata={"axes": "ZYX"},
            photometric="minisblack",
        )  # fmt: skip
        rows.append({"file": f"{k}.tif", "z": 0, "y": 0, "x": 20 * k})
    tiles = write_list(tmp_path / "tiles.csv", rows)
    error = refused(job, tiles, tmp_path / "out", "--set", "blend.interpolation=lanczos")
    assert "lanczos" in error


def test_several_times_in_a_precomputed_volume(tmp_path, refused):
    rows = []
    for k in range(2):
        write_tiff(tmp_path / f"{k}.tif", np.ones((40, 40), np.uint8))
        rows.append({"file": f"{k}.tif", "y": 0, "x": 0, "time": k})
    tiles = write_list(tmp_path / "tiles.csv", rows)
    error = refused("fuse", tiles, tmp_path / "out", "--set", "volume.format=precomputed")
    assert "time" in error


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("tiles: [", "YAML"),
        ("- a\n- b\n", "mapping"),
        ("tiles: t.csv\n", "output"),
        ("tiles: t.csv\noutput: o\nblendd: {mode: max}\n", "blend"),
        ("tiles: t.csv\noutput: o\nblend: max\n", "blend"),
    ],
)
def test_bad_job_files(tmp_path, refused, text, near):
    (tmp_path / "job.yaml").write_text(text)
    assert near in refused("fuse", tmp_path / "job.yaml")


def test_a_missing_job_file(tmp_path, refused):
    assert "job.yaml" in refused("fuse", tmp_path / "job.yaml")
