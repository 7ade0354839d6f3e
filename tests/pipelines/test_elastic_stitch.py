"""Elastic `stitch` end to end: tiles meet, any way of running it writes the same bytes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from bent_tiles import BentTiles, bend_of
from phantoms import Waves, damage
from running import markers, object_hashes, pixels, stitch

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.points import warp_points
from warpbeam.pipelines import report
from warpbeam.transforms.bends import BendReader
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import displacements, tables
from warpbeam.transforms.storage.run_folder import RunFolder

SIDE, STEP = 192, 124
OFF = {"shading": {"flatfield": "off", "gain": "off"}}
LARGE = {"volume": {"shard_2d": (256, 256), "chunk_2d": (128, 128), "pyramid": False}, **OFF}
BENT = {"elastic": {"enabled": True, "patch_px": 32}, "link": {"search_px": 12, "reduction": 1}}
VOLUME = "volume.ome.zarr"
UP_TO_FLOW = ["convert", "link", "null", "solve", "flow"]


def mosaic_in(folder, **how):
    """2 x 2 tiles of one truth, each bent; a fifth one far away, which nothing links."""
    truth = Waves.random(8, wavelengths=(6, 60), count=80)
    nominal = [*(np.array(divmod(k, 2)) * STEP for k in range(4)), np.array([40, 600])]
    bends = [bend_of(k, (2.5, 2.5), SIDE) for k in range(5)]
    return BentTiles(folder, truth, (SIDE, SIDE), nominal, bends, (4, 4), **how)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    return mosaic_in(tmp_path_factory.mktemp("elastic") / "tiles")


@pytest.fixture(scope="module")
def plain(mosaic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder / "run", stitch(mosaic.list, folder / "run", **LARGE, **BENT)


def seams(mosaic, run, *, bent):
    points = np.stack(np.mgrid[-5:330:3, -5:330:3], -1).reshape(-1, 2).astype(float)
    return mosaic.seams(run, points, bent=bent)


def test_bent_tiles_meet(mosaic, plain):
    rigid, elastic = (seams(mosaic, plain[0], bent=bent) for bent in (False, True))
    assert np.median(rigid) > 1
    assert np.median(elastic) < 0.25
    assert np.quantile(elastic, 0.95) < 0.8


def test_the_fused_overlap_is_sharp(mosaic, plain, tmp_path):
    """Averaging tiles that do not meet blurs: the elastic volume has more contrast there."""
    run = plain[0]
    stitch(mosaic.list, tmp_path / "rigid", **LARGE, link=BENT["link"])
    spread = []
    for folder in (run, tmp_path / "rigid"):
        y, x = json.loads((folder / ".ledger" / "canvas.json").read_text())["origin"]
        part = pixels(folder)[0, 0, 0, 132 - y : 184 - y, 132 - x : 184 - x].astype(float)
        spread.append(np.diff(part, axis=1).std())
    assert spread[0] > 1.05 * spread[1]


def test_what_is_said_of_links_and_tiles(plain):
    run, outcome = plain
    rows = tables.read(str(run / "links.parquet"))
    faces = [r for r in rows if r["points"]]
    assert len(faces) == 4
    for row in faces:
        assert row["residual_elastic_px"] < 0.2 < row["flow_px"]
    assert outcome.numbers["tiles_bent"] == 4
    assert outcome.numbers["tiles_folded"] == 0
    assert outcome.numbers["meshes_unsettled"] == 0
    assert outcome.numbers["residual_elastic_median_px"] < 0.1
    assert outcome.numbers["flow_median_px"] > 0.5
    assert outcome.numbers["points_kept"] > 0.9 * outcome.numbers["points"]


def test_the_maps_lead_where_the_volume_has_the_tiles(mosaic, plain):
    """`maps/` and then the matrix: the forward map of the points that are drawn."""
    run = RunFolder(str(plain[0]))
    bends = BendReader(run)
    for placed in list(load_placement(run))[:4]:
        field = displacements.load(run.map(placed.source.key.tile))
        assert field.lattice.stride == (20.0, 20.0)
        points = np.random.default_rng(0).uniform(5, SIDE - 6, (50, 2))
        straight = warp_points(field.read(), points)
        back = bends.of(placed.source.key).bent(straight)
        np.testing.assert_allclose(back, points, atol=0.1)


def test_a_tile_without_links_stays_straight(plain):
    run = RunFolder(str(plain[0]))
    far = list(load_placement(run))[4]
    assert BendReader(run).of(far.source.key) is None
    assert not (plain[0] / "maps" / "t4.ome.zarr").exists()
    rows = [r for r in tables.read(run.table("tiles")) if r["island"]]
    assert [r["tile"] for r in rows] == ["t4"]


@pytest.mark.parametrize("shard", [(32, 32), (96, 160), (512, 512)])
def test_any_shard_gives_the_same_pixels(mosaic, plain, tmp_path, shard):
    volume = {"shard_2d": shard, "chunk_2d": (32, 32), "pyramid": False}
    stitch(mosaic.list, tmp_path / "run", **{**LARGE, "volume": volume}, **BENT)
    np.testing.assert_array_equal(pixels(tmp_path / "run"), pixels(plain[0]))


@pytest.mark.parametrize(
    ("workers", "flags"),
    [(1, []), (4, []), (2, ["--direct_running_mode=multi_processing"])],
)
def test_any_workers_give_the_same_bytes(mosaic, plain, tmp_path, workers, flags):
    stitch(mosaic.list, tmp_path / "run", flags, **LARGE, **BENT, run={"workers": workers})
    for name in (VOLUME, "maps"):
        assert object_hashes(tmp_path / "run" / name) == object_hashes(plain[0] / name)
    for name in ("links.parquet", "transforms.json"):
        assert (tmp_path / "run" / name).read_bytes() == (plain[0] / name).read_bytes()


def test_any_order_of_the_list_gives_nearly_the_same(mosaic, plain, tmp_path):
    """Another order of tiles is another order of sums in the meshes, and of blending."""
    head, *rows = mosaic.list.read_text().splitlines()
    tiles = mosaic.list.with_name("reversed.csv")
    tiles.write_text("\n".join([head, *rows[::-1]]) + "\n")
    stitch(tiles, tmp_path / "run", **LARGE, **BENT)
    apart = np.abs(pixels(tmp_path / "run").astype(float) - pixels(plain[0]))
    assert np.quantile(apart, 0.999) <= 3


def points_of(run):
    """The points of every pair of tiles as rows `p, q - p`, by their file."""
    return {path.name: np.load(path) for path in sorted((run / ".ledger" / "points").iterdir())}


def believed(mosaic, output, **elastic):
    given = {"link": BENT["link"], "elastic": BENT["elastic"] | elastic}
    stitch(mosaic.list, output, **LARGE, **given, stages=UP_TO_FLOW)
    return points_of(output)


def test_points_far_from_the_median_of_an_overlap_are_not_believed(mosaic, plain, tmp_path):
    found = believed(mosaic, tmp_path / "run", max_magnitude_px=1.0)
    for name, rows in points_of(plain[0]).items():
        apart = rows[:, 2:] - np.median(rows[:, 2:], axis=0)
        expected = rows[np.abs(apart).max(axis=1) <= 1]
        assert 0 < len(expected) < len(rows)
        np.testing.assert_array_equal(found[name], expected)


def test_blurred_points_are_not_believed(mosaic, plain, tmp_path):
    found = believed(mosaic, tmp_path / "run", min_sharpness=20.0)
    for name, rows in points_of(plain[0]).items():
        assert 0 < len(found[name]) < len(rows)
        assert {*map(tuple, found[name].tolist())} < {*map(tuple, rows.tolist())}


def test_a_second_run_does_nothing(mosaic, plain):
    before = markers(plain[0])
    table = (plain[0] / "links.parquet").read_bytes()
    again = stitch(mosaic.list, plain[0], **LARGE, **BENT)
    assert markers(plain[0]) == before
    assert (plain[0] / "links.parquet").read_bytes() == table
    assert again.numbers["points"] == plain[1].numbers["points"]


def test_stages_one_after_another_give_the_same_bytes(mosaic, plain, tmp_path):
    for stages in (["convert", "link", "null", "solve"], ["flow", "mesh"], None):
        stitch(mosaic.list, tmp_path / "run", stages=stages, **LARGE, **BENT)
    assert object_hashes(tmp_path / "run" / VOLUME) == object_hashes(plain[0] / VOLUME)


def test_it_is_off_unless_it_is_asked_for(mosaic, tmp_path):
    outcome = stitch(mosaic.list, tmp_path / "run", **LARGE)
    assert not (tmp_path / "run" / "maps").exists()
    assert "tiles_bent" not in outcome.numbers
    rows = tables.read(str(tmp_path / "run" / "links.parquet"))
    assert "residual_elastic_px" not in rows[0]


def test_a_corrupt_tile_is_left_out_of_the_flow(tmp_path):
    mosaic = mosaic_in(tmp_path / "tiles", rowsperstrip=16)
    bad = tmp_path / "tiles" / "t1.tif"
    intact = damage(bad, at=0.02, count=bad.stat().st_size // 2)
    outcome = stitch(mosaic.list, tmp_path / "run", expect=1, **LARGE, **BENT)
    assert all(str(bad) in failure.cause for failure in outcome.failures)
    assert outcome.numbers["tiles_bent"] >= 3
    bad.write_bytes(intact)
    stitch(mosaic.list, tmp_path / "run", **LARGE, **BENT)
    assert np.median(seams(mosaic, tmp_path / "run", bent=True)) < 0.25


def test_bounds_of_the_canvas_hold_the_bent_tiles(plain):
    run = RunFolder(str(plain[0]))
    bends = BendReader(run)
    canvas = json.loads((plain[0] / ".ledger" / "canvas.json").read_text())
    whole = Box.of_shape(canvas["shape"][-2:], canvas["origin"])
    for placed in list(load_placement(run))[:4]:
        assert whole.contains(bends.bounds(placed.source.key))


def test_the_report_shows_seams_straight_and_bent(plain):
    page = Path(report.write(plain[0])).read_text()
    section = re.search(r'<section id="bends">.*?</section>', page, re.S)[0]
    assert "4 tiles were bent" in section
    assert section.count("<img") == 3 * 4
    said = r"Points ([\d.]+) px apart .*?, ([\d.]+) px where .*? ([\d.]+), then (\d\.\d+)"
    found = re.findall(said, section, re.S)
    assert len(found) == 3
    for straight, bent, before, after in (map(float, numbers) for numbers in found):
        assert bent < 0.2 * straight
        assert after > before
