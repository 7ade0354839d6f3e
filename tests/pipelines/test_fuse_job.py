"""`fuse` end to end on the local runner: right pixels, the same bytes, nothing done twice."""

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from phantoms import (
    Waves,
    damage,
    matrix_columns,
    shifted,
    to_uint16,
    write_list,
    write_mosaic,
    write_tiff,
)
from running import environment, fuse, markers, object_hashes, pixels

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines import fusing
from warpbeam.pipelines.config import FuseConfig
from warpbeam.pipelines.fuse import FuseJob
from warpbeam.transforms.canvas import LayOut
from warpbeam.transforms.storage import volume

VOLUME = "volume.ome.zarr"
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """Turned tiles on fractional positions, and the bytes of one plain run over them."""
    folder = tmp_path_factory.mktemp("mosaic")
    truth, rng, rows = Waves.random(0), np.random.default_rng(0), []
    for k in range(9):
        matrix = shifted(*(np.array(divmod(k, 3)) * 80 + rng.uniform(-3, 3, 2)))
        matrix[:2, :2] += rng.uniform(-0.02, 0.02, (2, 2))
        write_tiff(folder / f"t{k}.tif", to_uint16(truth.image((96, 96), matrix)))
        rows.append({"file": f"t{k}.tif", **matrix_columns(matrix)})
    tiles = write_list(folder / "tiles.csv", rows)
    fuse(tiles, folder / "plain")
    return tiles, folder / "plain"


def test_pixels_show_the_truth(mosaic):
    run = mosaic[1]
    canvas = json.loads((run / ".ledger" / "canvas.json").read_text())
    image = pixels(run)[0, 0, 0]
    truth = Waves.random(0).image(image.shape, shifted(*map(float, canvas["origin"])))
    inside = image > 0
    assert inside.mean() > 0.9
    assert np.abs(image - truth)[inside].max() < 60  # what linear interpolation costs
    assert np.abs(image - truth)[inside].mean() < 4


def test_the_pyramid_is_the_mean(mosaic):
    fine = pixels(mosaic[1])[0, 0, 0].astype(float)
    opened = volume.open_volume(str(mosaic[1] / VOLUME))
    assert len(opened.spec.group_starts) > 1  # some made by shard, some above
    for k in range(1, opened.levels):
        size = [-(-n // 2) for n in fine.shape]
        expected = np.zeros(size)
        for y, x in np.ndindex(*size):
            expected[y, x] = np.rint(fine[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean())
        fine = pixels(mosaic[1], k)[0, 0, 0].astype(float)
        np.testing.assert_array_equal(fine, expected)


def test_what_is_not_a_number_hides_nothing(tmp_path):
    """It is no data: the other tile shows there, and nothing where there is no other one."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(100, 200, (60, 100)).astype(np.float32)
    rows = []
    for k, left in enumerate((0, 40)):
        tile = truth[:, left : left + 60].copy()
        tile[20:30, 5:15] = np.nan  # of the second one in the overlap
        tile[0, 59] = np.inf
        write_tiff(tmp_path / f"{k}.tif", tile)
        rows.append({"file": f"{k}.tif", "y": 0, "x": left})
    fuse(write_list(tmp_path / "tiles.csv", rows), tmp_path / "run")
    found = pixels(tmp_path / "run")[0, 0, 0]
    expected = truth.copy()
    expected[20:30, 5:15] = expected[0, 99] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bright_borders_are_kept_out_of_the_overlaps(tmp_path):
    """Two tiles with an edge of 10 px as a charged section has it, 30 px of overlap."""
    for k in range(2):
        image = np.full((90, 90), 1000, np.uint16)
        image[:10], image[-10:], image[:, :10], image[:, -10:] = [9000] * 4
        write_tiff(tmp_path / f"t{k}.tif", image)
    rows = [{"file": f"t{k}.tif", **matrix_columns(shifted(0, 60 * k))} for k in range(2)]
    tiles = write_list(tmp_path / "tiles.csv", rows)
    fuse(tiles, tmp_path / "with")
    fuse(tiles, tmp_path / "without", blend={"margin_px": 10})
    image, better = (pixels(tmp_path / name)[0, 0, 0] for name in ("with", "without"))
    assert image.shape == better.shape == (90, 150)
    assert image[20:70, 60:90].max() > 2000
    assert np.abs(better[20:70, 10:-10].astype(int) - 1000).max() <= 8
    np.testing.assert_array_equal(better[:, :10], image[:, :10])  # nothing else lies there


@pytest.mark.parametrize("shard", [(32, 32), (96, 160), (320, 320)])
def test_any_shard_gives_the_same_pixels(mosaic, tmp_path, shard):
    fuse(mosaic[0], tmp_path / "run", volume={"shard_2d": shard, "pyramid": False})
    np.testing.assert_array_equal(pixels(tmp_path / "run"), pixels(mosaic[1]))


def test_any_order_of_the_list_gives_the_same_bytes(mosaic, tmp_path):
    head, *rows = mosaic[0].read_text().splitlines()
    random.Random(1).shuffle(rows)
    tiles = mosaic[0].with_name("shuffled.csv")
    tiles.write_text("\n".join([head, *rows]) + "\n")
    fuse(tiles, tmp_path / "run")
    assert object_hashes(tmp_path / "run" / VOLUME) == object_hashes(mosaic[1] / VOLUME)


@pytest.mark.parametrize(
    ("workers", "flags"),
    [
        (1, []),
        (4, []),
        (2, ["--direct_running_mode=multi_processing"]),
        (1, ["--direct_running_mode=multi_threading"]),
    ],
)
def test_any_workers_give_the_same_bytes(mosaic, tmp_path, workers, flags):
    fuse(mosaic[0], tmp_path / "run", flags, run={"workers": workers})
    assert object_hashes(tmp_path / "run" / VOLUME) == object_hashes(mosaic[1] / VOLUME)


def test_a_second_run_does_nothing(mosaic):
    before, data = markers(mosaic[1]), object_hashes(mosaic[1] / VOLUME)
    fuse(mosaic[0], mosaic[1])
    assert markers(mosaic[1]) == before  # times of writing included
    assert object_hashes(mosaic[1] / VOLUME) == data


def test_stages_one_after_another_give_the_same_bytes(mosaic, tmp_path):
    run = tmp_path / "run"
    for stages in (["convert"], ["canvas", "fuse"], None):
        fuse(mosaic[0], run, stages=stages)
    assert object_hashes(run / VOLUME) == object_hashes(mosaic[1] / VOLUME)


def test_overwriting_leaves_nothing_of_the_old_run(mosaic, tmp_path):
    run = tmp_path / "run"
    fuse(mosaic[0], run, blend={"mode": "max"}, volume={"coverage": True})
    fuse(mosaic[0], run, overwrite=True)
    assert object_hashes(run / VOLUME) == object_hashes(mosaic[1] / VOLUME)
    assert {p.name for p in run.iterdir()} == {p.name for p in mosaic[1].iterdir()}
    assert markers(run).keys() == markers(mosaic[1]).keys()


@pytest.mark.parametrize("format", ["zarr2", "n5", "precomputed"])
def test_every_format_holds_the_same_pixels(mosaic, tmp_path, format):
    fuse(mosaic[0], tmp_path / "run", volume={"format": format, "coverage": True})
    for level in (0, 1, 2):
        np.testing.assert_array_equal(
            pixels(tmp_path / "run", level, format), pixels(mosaic[1], level)
        )


def test_coverage_counts_the_tiles(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=2)
    fuse(tiles, tmp_path / "run", volume={"coverage": True})
    opened = volume.open_volume(str(tmp_path / "run" / "masks" / "coverage.ome.zarr")).level(0)
    found = opened.read(Box.of_shape(opened.shape))[0, 0, 0]
    expected = np.zeros((176, 176), int)
    for y in (0, 80):
        for x in (0, 80):
            expected[y : y + 96, x : x + 96] += 1
    np.testing.assert_array_equal(found, expected)


def test_channels_times_and_sections_land_where_they_belong(tmp_path):
    """Each image has a grey value of its own, so that any mix-up shows."""
    rows, value = [], {}
    for time in (0, 3):
        for section in (5, 2):
            for channel in ("DAPI", "actin"):
                for tile, x in (("a", 0), ("b", 40)):
                    grey = 10 + len(rows)
                    name = f"{len(rows)}.tif"
                    write_tiff(tmp_path / name, np.full((48, 48), grey, np.uint8))
                    value[time, channel, section, tile] = grey
                    rows.append({"file": name, "tile": tile, "y": 0, "x": x, "time": time,
                                 "section": section, "channel": channel})  # fmt: skip
    random.Random(0).shuffle(rows)
    outcome = fuse(write_list(tmp_path / "tiles.csv", rows), tmp_path / "run")
    image = pixels(tmp_path / "run")
    assert image.shape == outcome.numbers["shape_tczyx"] == (2, 2, 2, 48, 88)
    attributes = json.loads((tmp_path / "run" / VOLUME / "zarr.json").read_text())["attributes"]
    shown = attributes["ome"]["omero"]["channels"]
    assert [c["label"] for c in shown] == ["DAPI", "actin"]
    for c, channel in enumerate(("DAPI", "actin")):
        greys = [grey for key, grey in value.items() if key[1] == channel]
        window = shown[c]["window"]
        assert (window["start"], window["end"]) == pytest.approx((min(greys), max(greys)), abs=1)
    for (time, channel, section, tile), grey in value.items():
        t, c, z = (0, 3).index(time), ("DAPI", "actin").index(channel), (2, 5).index(section)
        columns = slice(0, 40) if tile == "a" else slice(48, 88)
        assert (image[t, c, z, :, columns] == grey).all()


def test_volumes_are_fused_in_3d(tmp_path):
    truth, rows = Waves.random(0, 3), []
    for k, at in enumerate([(0, 0, 0), (2, 3, 40), (1, 38, 2)]):
        image = to_uint16(truth.image((20, 48, 52), shifted(*map(float, at))))
        write_tiff(tmp_path / f"{k}.tif", image)
        rows.append({"file": f"{k}.tif", **dict(zip("zyx", at, strict=True))})
    fuse(write_list(tmp_path / "tiles.csv", rows), tmp_path / "run")
    image = pixels(tmp_path / "run")[0, 0]
    expected = to_uint16(truth.image(image.shape))
    covered = np.zeros(image.shape, bool)
    for z, y, x in [(0, 0, 0), (2, 3, 40), (1, 38, 2)]:
        covered[z : z + 20, y : y + 48, x : x + 52] = True
    assert image.shape == (22, 86, 92)
    np.testing.assert_array_equal(image, expected * covered)


@pytest.mark.parametrize("strips", [16, 96], ids=["read in parts", "converted"])
def test_a_corrupt_tile_costs_itself_only(tmp_path, strips):
    tiles = write_mosaic(tmp_path / "tiles", rowsperstrip=strips)
    settings = {"blend": {"mode": "mean"}, "volume": {"pyramid": False}}
    fuse(tiles, tmp_path / "sound", **settings)
    sound = pixels(tmp_path / "sound")[0, 0, 0]
    bad, run = tmp_path / "tiles" / "t_80_80.tif", tmp_path / "run"
    intact = damage(bad)
    outcome = fuse(tiles, run, expect=1, **settings)
    listed = json.loads((run / "run.json").read_text())["failures"]
    assert len(listed) == len(outcome.failures) > 0
    assert all(str(bad) in failure["cause"] for failure in listed)
    found = pixels(run)[0, 0, 0]
    alone = np.zeros(sound.shape, bool)
    alone[96:160, 96:160] = True  # where no other tile lies
    assert not found[alone].any()
    overlap = np.zeros(sound.shape, bool)
    overlap[80:176, 80:176] = ~alone[80:176, 80:176]
    np.testing.assert_allclose(found[overlap], sound[overlap], atol=1)
    np.testing.assert_array_equal(found[~alone & ~overlap], sound[~alone & ~overlap])

    converted = markers(run, "convert")
    bad.write_bytes(intact)
    fuse(tiles, run, **settings)
    assert object_hashes(run / VOLUME) == object_hashes(tmp_path / "sound" / VOLUME)
    assert converted.items() <= markers(run, "convert").items()  # no other tile was read anew
    assert json.loads((run / "run.json").read_text())["failures"] == []


@pytest.mark.parametrize("lean", [(1e-3, 0.0), (0.0, 1e-3), (1.2e-3, 1e-3), (-1e-3, 0.0)])
def test_a_perspective_whose_horizon_is_near(tmp_path, lean):
    """Beyond it lies what the inverse map turns around; the tile is on this side of it."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    for name, values in (("y", y), ("x", x)):
        write_tiff(tmp_path / f"{name}.tif", values + 1)
        columns = {"m00": 1, "m01": 0, "m02": 0, "m10": 0, "m11": 1, "m12": 0,
                   "m20": lean[0], "m21": lean[1], "m22": 1}  # fmt: skip
        listed = write_list(tmp_path / f"{name}.csv", [{"file": f"{name}.tif", **columns}])
        fuse(listed, tmp_path / name, blend={"mode": "mean"})
    matrix = np.array([[1, 0, 0], [0, 1, 0], [*lean, 1]])
    canvas = json.loads((tmp_path / "y" / ".ledger" / "canvas.json").read_text())
    for at in ((20, 30), (50, 50), (90, 20), (20, 90)):
        h = matrix @ [*at, 1]
        place = np.rint(h[:2] / h[2]).astype(int) - canvas["origin"][1:]
        back = np.linalg.inv(matrix) @ [*(place + canvas["origin"][1:]), 1]
        for k, name in enumerate("yx"):
            got = pixels(tmp_path / name)[0, 0, 0][tuple(place)]
            assert got == pytest.approx(back[k] / back[2] + 1, abs=0.01)


def test_a_corrupt_tile_leaves_the_shading_of_the_others_alone(tmp_path):
    """The flat field is that of all tiles but it, and each of them has its gain."""
    tiles = write_mosaic(tmp_path / "tiles", rowsperstrip=16)
    damage(tmp_path / "tiles" / "t_80_80.tif")
    shading = {"flatfield": "on", "gain": "gain"}
    outcome = fuse(tiles, tmp_path / "run", expect=1, shading=shading)
    assert {f.stage for f in outcome.failures} == {"fuse"}
    gains = json.loads((tmp_path / "run" / "shading" / "gains.json").read_text())
    rows = tiles.read_text().splitlines()
    sound = [rows[0], *(row for row in rows[1:] if "t_80_80" not in row)]
    (tmp_path / "tiles" / "sound.csv").write_text("\n".join(sound) + "\n")
    fuse(tmp_path / "tiles" / "sound.csv", tmp_path / "sound", shading=shading)
    expected = json.loads((tmp_path / "sound" / "shading" / "gains.json").read_text())
    assert all(gains[tile] != [[1.0, 0.0]] for tile in expected)
    flats = [np.load(tmp_path / run / "shading" / "flat_c0.npy") for run in ("run", "sound")]
    np.testing.assert_array_equal(*flats)


def test_a_changed_tile_redoes_the_shards_that_it_touches(tmp_path):
    """Render cells are 1024 px wide: a tile far away does not matter."""
    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=3, tile=128, step=1500)
    settings = {"volume": {"pyramid": False, "shard_2d": (512, 512), "chunk_2d": (128, 128)}}
    run = tmp_path / "run"
    fuse(tiles, run, **settings)
    before = markers(run, "fuse")
    write_tiff(tmp_path / "tiles" / "t_0_0.tif", np.full((128, 128), 7, np.uint16))
    fuse(tiles, run, **settings)
    after = markers(run, "fuse")
    assert (pixels(run)[0, 0, 0, :, :128] == 7).all()
    kept = {name for name, time in after.items() if before.get(name) == time}
    assert 0 < len(kept) < len(before)
    assert (pixels(run)[0, 0, 0, :128, 1500:1628] > 100).all()


def test_a_failed_critical_stage_stops_the_job(mosaic, tmp_path, monkeypatch):
    from warpbeam.transforms import canvas

    def refuse(spec):
        raise PermissionError("no permission to write here")

    monkeypatch.setattr(canvas.volume, "create", refuse)
    outcome = fuse(mosaic[0], tmp_path / "run", expect=1)
    assert outcome.stopped
    (failure,) = outcome.failures
    assert (failure.stage, failure.error) == ("canvas", "PermissionError")
    monkeypatch.undo()
    fuse(mosaic[0], tmp_path / "run")
    assert object_hashes(tmp_path / "run" / VOLUME) == object_hashes(mosaic[1] / VOLUME)


def test_memory_does_not_grow_with_the_mosaic(tmp_path):
    """A worker holds a shard, never the tile list's pixels: four times the tiles, 10 % more."""
    peaks = []
    for n in (3, 6):
        tiles = write_mosaic(tmp_path / f"{n}", rows=n, columns=n, tile=256, step=230)
        code = (
            "import sys; from peak_memory import peak_mb; from warpbeam.pipelines.cli import main;"
            "code = main(sys.argv[1:]); print(code, peak_mb())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "fuse", tiles, tmp_path / f"run{n}", "--quiet",
             "--set", "volume.shard_2d=[512,512]", "--set", "run.workers=1"],
            env=environment(), cwd=TESTS, capture_output=True, text=True, check=True,
        )  # fmt: skip
        code, peak = done.stdout.split()[-2:]
        assert code == "0"
        peaks.append(float(peak))
    assert peaks[1] < 1.1 * peaks[0]


def test_nothing_written_to_a_canvas_of_another_shape_counts(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=2)
    run = tmp_path / "run"
    fuse(tiles, run)
    job = FuseJob(FuseConfig(tiles=str(tiles), output=str(run)))
    lay_out = LayOut(job.run_folder, fusing.output_settings(job.config, job.tiles))
    shape = pixels(run).shape
    moved = json.loads((run / "transforms.json").read_text())
    moved[max(moved)]["matrix"][1][2] += 40
    (run / "transforms.json").write_text(json.dumps(moved))
    lay_out(("canvas",), None)
    assert pixels(run).shape == (*shape[:-1], shape[-1] + 40)
    assert not pixels(run).any()
    assert not markers(run, "fuse")


def test_a_shard_that_no_tile_touches_any_more_is_emptied(tmp_path):
    """A tile that is placed elsewhere, on a canvas that stays; render cells are 1024 px wide."""
    for name, value in (("a", 50), ("b", 90), ("c", 130)):
        write_tiff(tmp_path / f"{name}.tif", np.full((128, 128), value, np.uint16))
    at = {"a": (0, 0), "b": (2500, 2500), "c": (0, 2500)}
    rows = [{"file": f"{name}.tif", "y": y, "x": x} for name, (y, x) in at.items()]
    tiles, run = write_list(tmp_path / "tiles.csv", rows), tmp_path / "run"
    volumes = {"shard_2d": (512, 512), "chunk_2d": (128, 128)}
    settings = {"volume": volumes, "shading": {"flatfield": "off"}}
    fuse(tiles, run, **copy.deepcopy(settings))
    assert (pixels(run)[0, 0, 0, :128, 2500:] == 130).all()
    placed = json.loads((run / "transforms.json").read_text())
    placed["c"]["matrix"] = [[1.0, 0.0, 2500.0], [0.0, 1.0, 0.0]]
    _fuse_again(tiles, run, settings, placed)
    now = pixels(run)[0, 0, 0]
    assert (now[2500:, :128] == 130).all()
    assert not now[:128, 2500:].any()
    assert now[:128, :128].all()
    assert now[2500:, 2500:].all()
    coarse = volume.open_volume(str(run / VOLUME)).level(2)
    assert not coarse.read(Box.of_shape(coarse.shape))[0, 0, 0, :32, 625:].any()
    _fuse_again(tiles, run, settings, placed)
    np.testing.assert_array_equal(pixels(run)[0, 0, 0], now)


def _fuse_again(tiles, run, settings, placed):
    """The stages after the placement, with another one."""
    with mock.patch.object(FuseJob, "prepare", return_value=None):
        (run / "transforms.json").write_text(json.dumps(placed))
        assert fuse(tiles, run, **copy.deepcopy(settings)).exit_code == 0
