"""The report: what it says is what was measured."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from report_pages import (
    ERRORS,
    SMALL,
    TILE,
    Page,
    changed,
    decode,
    page_of,
    rewritten,
    run_stitch,
    stitched,
    texture,
    write_tiles,
)
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines import fuse, report
from warpbeam.pipelines.config import FuseConfig
from warpbeam.pipelines.report import charts, pictures, reading, seams
from warpbeam.pipelines.report.verdict import judge
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.errors import InputError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return stitched(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """The last tile shows something else, and the file of the first is damaged."""
    folder = tmp_path_factory.mktemp("troubled")
    other = {5: texture((TILE, TILE), seed=9)}
    tiles = write_tiles(folder / "in", replaced=other, compression="zlib")
    damaged = folder / "in" / "t0.tif"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    damaged.write_bytes(data)
    return run_stitch(tiles, folder / "out"), folder / "out"


@pytest.fixture(scope="module")
def run(good):
    return reading.read_run(good)


def test_page_needs_nothing_else(good):
    page = page_of(good)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "could not be drawn" not in page.text
    assert len(page.text) < 3_000_000
    parts = [p for p in page.sections if p not in ("verdict", "numbers", "greys")]
    assert parts == ["layout", "links", "seams", "result", "coverage", "configuration"]
    for section in ("layout", "links", "seams", "result", "coverage"):
        assert page.pictures(section)
        assert all(p is not None and min(p.shape[:2]) > 30 for p in page.pictures(section))
    assert all(p.std() > 0 for p in page.pictures("layout") + page.pictures("result"))


def test_numbers_are_those_of_the_run(good):
    page, summary = page_of(good), json.loads((good / "run.json").read_text())
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.text))
    assert int(shown["links kept"]) == summary["numbers"]["links_kept"] == 7
    assert float(shown["residual max, px"]) == pytest.approx(
        summary["numbers"]["residual_max_px"], rel=1e-3
    )
    height, width = volume.open_volume(str(good / "volume.ome.zarr")).spec.shape[3:]
    assert shown["shape (t, c, z, y, x)"] == f"1 × 1 × 1 × {height} × {width}"
    assert summary["versions"]["numpy"] in page.words["configuration"]


def test_verdict_of_a_good_run(good, run):
    level, words = page_of(good).verdict()
    numbers = run.numbers
    assert level == "good"
    assert words == (
        f"All 7 links agree to {numbers['residual_max_px']:.2g} px (worst); the stage was off by "
        f"{numbers['stage_error_median_px']:.1f} px (median; "
        f"{numbers['stage_error_max_px']:.1f} px at most)."
    )
    # The truth: neighbours differ in their errors by up to |(3, -4) - (-2, 5)|.
    pairs = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
    true = [np.hypot(*np.subtract(ERRORS[a], ERRORS[b])) for a, b in pairs]
    assert numbers["stage_error_max_px"] == pytest.approx(max(true), abs=0.1)
    assert f"{max(true):.1f} px at most" in words


def test_verdict_names_rejected_links_by_reason(run):
    chance = {"kept": False, "accepted": False, "reason": "no better than chance"}
    against = {"kept": False, "reason": ""}
    verdict = judge(changed(run, {0: chance, 1: chance, 2: against}))
    assert verdict.level == "look"
    assert verdict.sentences[0].startswith("4 of 7 links were kept; the stage was off by")
    assert "3 links were rejected (2 no better than chance, 1 against the others)." in (
        verdict.sentences
    )


def test_verdict_names_islands(run):
    alone = {4: {"island": True, "component": 1}, 5: {"island": True, "component": 1}}
    verdict = judge(changed(run, tile_rows=alone))
    assert verdict.level == "look"
    assert (
        "2 tiles in 1 island lie where the stage says, because no believed link joins them to "
        "the rest." in verdict.sentences
    )


def test_verdict_of_tiles_that_should_bend_and_do_not(run):
    numbers = {**run.numbers, "points": 0, "tiles_bent": 0}
    verdict = judge(replace(run, summary={**run.summary, "numbers": numbers}))
    assert verdict.level == "look"
    assert "so no tile bends" in verdict.sentences[-1]
    assert "bend" not in " ".join(judge(run).sentences)


def test_verdict_names_meshes_that_did_not_settle(run):
    numbers = {**run.numbers, "meshes_unsettled": 2}
    verdict = judge(replace(run, summary={**run.summary, "numbers": numbers}))
    assert verdict.level == "look"
    assert verdict.sentences[-1].startswith("The meshes of 2 montages did not settle")


def test_verdict_names_failed_keys_first(run):
    failure = {"stage": "fuse", "key": [0, [0, 0, 0, 1, 1]], "error": "OSError", "cause": "x"}
    verdict = judge(changed(run, failures=[failure]))
    assert verdict.level == "incomplete"
    assert verdict.sentences[0].startswith("1 key failed (fuse): what depends on it is missing")


def test_verdict_does_not_praise_links_that_nothing_checks(run):
    gone = {"kept": False, "reason": "no better than chance"}
    tree = changed(run, {0: gone, 6: gone})
    assert "Links without a loop check one another nowhere" in judge(tree).sentences[0]
    none = changed(run, dict.fromkeys(range(7), gone))
    assert judge(none).sentences[0].startswith("No link was believed")


def test_verdict_names_the_seam_that_may_be_visible(run):
    worst = {3: {"residual_px": 3.5}}
    verdict = judge(changed(run, worst))
    row = run.links[3]
    assert verdict.level == "look"
    assert f"the worst between {row['tile_a']} and {row['tile_b']}" in verdict.sentences[-1]


def test_troubled_run_says_so(troubled):
    outcome, folder = troubled
    page = page_of(folder)
    level, words = page.verdict()
    assert level == "incomplete"
    assert words.startswith("1 key failed (convert): what depends on it is missing")
    assert re.search(r"2 links were rejected \(.*1 no better than chance", words)
    assert "2 tiles in 2 islands lie where the stage says" in words
    assert re.search(r"convert\s*\[0, 0, \"t0\"\]", page.words["failures"])
    rejected = re.findall(r"(t\d)(t\d)\d+\.\d", page.words["links"])
    assert sorted(rejected) == [("t2", "t5"), ("t4", "t5")]
    assert {f.key for f in outcome.failures} == {TileKey(0, 0, "t0")}


def test_failures_are_listed_and_capped(run):
    failures = [
        {"stage": "fuse", "key": [0, [0, 0, 0, 0, i]], "error": "OSError", "cause": f"disk {i}"}
        for i in range(60)
    ]
    table, hidden = report._failures(changed(run, failures=failures))
    assert (len(table.rows), hidden) == (50, 10)
    assert table.rows[3] == ("fuse", "[0, [0, 0, 0, 0, 3]]", "OSError", "disk 3")


def test_one_part_that_fails_leaves_the_others(good, tmp_path, monkeypatch):
    shutil.copytree(good, tmp_path / "out")

    def broken(run):
        raise ValueError("no ink")

    monkeypatch.setattr(report, "_PARTS", (("Layout", broken), *report._PARTS[1:]))
    page = rewritten(tmp_path / "out")
    assert "This part could not be drawn: ValueError: no ink" in page.words["layout"]
    assert page.pictures("result")


def test_tiles_that_are_gone_cost_the_seams_only(good, tmp_path):
    shutil.copytree(good, tmp_path / "out")
    sources = tmp_path / "out" / ".ledger" / "tiles.json"
    sources.write_text(sources.read_text().replace(".tif", ".gone"))
    page = rewritten(tmp_path / "out")
    assert "cannot be read any more" in page.words["seams"]
    assert not page.pictures("seams")
    assert page.pictures("result")


def test_report_that_fails_does_not_lose_the_run(tmp_path, monkeypatch, caplog):
    def broken(uri):
        raise RuntimeError("no space")

    monkeypatch.setattr(report, "write", broken)
    outcome = run_stitch(write_tiles(tmp_path / "in", rows=1, columns=2), tmp_path / "out")
    assert (outcome.report, outcome.exit_code) == (None, 0)
    assert "its report could not be written" in caplog.text
    assert (tmp_path / "out" / "run.json").exists()


def test_report_of_a_bucket(good):
    for key in store.list_keys(f"{good}/"):
        if key != "report.html":
            store.write_bytes(f"memory://report/out/{key}", (good / key).read_bytes())
    assert report.write("memory://report/out") == "memory://report/out/report.html"
    page = Page(store.read_bytes("memory://report/out/report.html").decode())
    here = page_of(good)
    assert page.verdict() == here.verdict()
    for section in ("layout", "seams", "result"):
        for there, mine in zip(page.pictures(section), here.pictures(section), strict=True):
            assert np.array_equal(there, mine)


def test_fuse_has_no_links(tmp_path):
    tiles = write_tiles(tmp_path / "in", rows=1, columns=2)
    config = FuseConfig(tiles=str(tiles), output=str(tmp_path / "out"), volume=SMALL)
    assert fuse.run(config).report is not None
    page = page_of(tmp_path / "out")
    level, words = page.verdict()
    assert level == "good"
    assert words.startswith("2 tiles fused where the tile list has them. They cover 100")
    assert not {"links", "seams"} & set(page.sections)
    assert page.pictures("layout")
    assert "could not be drawn" not in page.text


def test_volumes_are_shown_by_their_middle(tmp_path):
    world = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(20, 64, 116)), 1.0)
    world = np.clip(1000 + 300 * world / world.std(), 0, 65535).astype(np.uint16)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", world[2:18, :, :72], photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "b.tif", world[3:19, :, 42:114], photometric="minisblack")
    listed = tmp_path / "in" / "tiles.csv"
    listed.write_text("file,z,y,x\na.tif,0,0,0\nb.tif,0,0,40\n")
    search = {"search_px": 5, "search_z_px": 2}
    assert run_stitch(listed, tmp_path / "out", link=search).exit_code == 0
    page, done = page_of(tmp_path / "out"), reading.read_run(tmp_path / "out")
    assert "could not be drawn" not in page.text
    seam = seams.SeamPainter(done).seam(done.links[0])
    assert seam.ncc_after > 0.95 > seam.ncc_before
    assert len(page.pictures("result")) == 3
    middle = volume.open_volume(done.folder.volume).level(0)
    depth = done.canvas.shape[2]
    plane = middle.read(Box.of_shape(middle.shape))[0, 0, depth // 2]
    window = pictures.windows(volume.stored_spec(done.folder.volume))[0]
    assert np.array_equal(page.pictures("result")[1], pictures.grey(plane, window))


def test_no_run_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="there is no run") as caught:
        report.write(tmp_path / "nothing")
    assert caught.value.got == "nothing"
    with pytest.raises(InputError, match="a folder without it"):
        report.write(tmp_path)


def test_charts_leave_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    made, _ = charts.figure(2, 1)
    assert decode(charts.png(made)).shape[:2] == (144, 288)
    assert dict(matplotlib.rcParams) == before
