"""The report: what it says is what was measured, and what it shows is where it belongs."""

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading
from warpbeam.pipelines import fuse, report, stitch
from warpbeam.pipelines.config import FuseConfig, StitchConfig
from warpbeam.pipelines.report import charts, fused, greys, layout, pictures, reading, seams
from warpbeam.pipelines.report.verdict import judge
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.shading import save_flat, save_gains
from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.errors import InputError

TILE, STEP = 192, 150
# True position less nominal position, of the tiles row by row.
# They add up to whole numbers per tile, so that the solved positions are whole too.
ERRORS = [(0, 0), (3, -4), (-2, 5), (4, 1), (-3, -2), (4, 0)]
SMALL = {"chunk_2d": (64, 64), "shard_2d": (128, 128), "chunk_3d": (8, 64, 64)}
SMALL["shard_3d"] = (32, 128, 256)


class Page(HTMLParser):
    """The parts of a report that tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.text, self.sections, self.images, self.links, self.words = text, [], [], [], {}
        self._inside = ["page"]
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("section", "div", "dl") and "id" in given:
            self.sections.append(given["id"])
            self._inside.append(given["id"])
        self.images += [(self._inside[-1], given["src"])] if tag == "img" else []
        self.links += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in ("section", "dl"):
            self._inside.pop()

    def handle_data(self, data):
        self.words[self._inside[-1]] = self.words.get(self._inside[-1], "") + data

    def pictures(self, section):
        found = [uri for inside, uri in self.images if inside == section]
        return [decode(base64.b64decode(uri.split(",", 1)[1])) for uri in found]

    def verdict(self):
        body = re.search(r'<div id="verdict" class="(\w+)">(.*?)</div>', self.text, re.S)
        return body[1], " ".join(re.sub("<[^>]+>", " ", body[2]).split())


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def texture(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    fine, coarse = (ndimage.gaussian_filter(noise, s) for s in (1.5, 8))
    values = fine / fine.std() + coarse / coarse.std()
    return np.clip(120 + 30 * values, 1, 255).astype(np.uint8)


def write_tiles(folder, rows=2, columns=3, replaced=None, compression=None):
    """Cut-outs of one texture at whole-pixel true positions; the list has the nominal ones."""
    folder.mkdir(parents=True, exist_ok=True)
    world = texture((20 + rows * STEP + TILE, 20 + columns * STEP + TILE))
    lines = ["file,y,x"]
    for n in range(rows * columns):
        y, x = (STEP * i for i in divmod(n, columns))
        top, left = 10 + y + ERRORS[n][0], 10 + x + ERRORS[n][1]
        tile = (replaced or {}).get(n, world[top : top + TILE, left : left + TILE])
        tifffile.imwrite(folder / f"t{n}.tif", tile, compression=compression)
        lines.append(f"t{n}.tif,{y},{x}")
    (folder / "tiles.csv").write_text("\n".join(lines))
    return folder / "tiles.csv"


def run_stitch(tiles, output, **settings):
    sizes = SMALL | settings.pop("volume", {})
    config = StitchConfig(
        tiles=str(tiles), output=str(output), volume=sizes, run={"workers": 1}, **settings
    )
    return stitch.run(config)


def page_of(folder):
    return Page((folder / "report.html").read_text())


def rewritten(folder):
    return Page(Path(report.write(folder)).read_text())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    outcome = run_stitch(write_tiles(folder / "in"), folder / "out", volume={"coverage": True})
    assert outcome.report == str(folder / "out" / "report.html")
    return folder / "out"


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


def changed(run, link_rows=(), tile_rows=(), failures=(), **numbers):
    """The run with numbers and rows replaced: rows as {index: changes}."""

    def edit(rows, changes):
        return tuple({**row, **dict(changes).get(i, {})} for i, row in enumerate(rows))

    summary = {**run.summary, "numbers": {**run.numbers, **numbers}, "failures": list(failures)}
    return dataclasses.replace(
        run, summary=summary, links=edit(run.links, link_rows), tiles=edit(run.tiles, tile_rows)
    )


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


def test_seam_correlation_is_that_of_the_pixels(run):
    row = next(r for r in run.links if (r["tile_a"], r["tile_b"]) == ("t0", "t1"))
    seam = seams.SeamPainter(run).seam(row)
    a, b = (
        tifffile.imread(run.tile_of[TileKey(0, 0, n)].source.images[0][0]) for n in ("t0", "t1")
    )
    by_stage = np.corrcoef(a[:, STEP:].ravel(), b[:, : TILE - STEP].ravel())[0, 1]
    assert seam.ncc_before == pytest.approx(by_stage, abs=1e-4)
    assert seam.ncc_after > 0.99 > 0.6 > seam.ncc_before
    # Tile a shows the same detail both times; where tile b does is what the solve changed.
    assert np.array_equal(seam.before.a.shape, seam.after.a.shape)
    assert np.nanmean(np.abs(seam.after.a - seam.before.a)) < 10
    assert np.nanmean(np.abs(seam.after.a - seam.after.b)) < 2
    assert np.nanmean(np.abs(seam.before.a - seam.before.b)) > 10


def test_composite_is_grey_where_tiles_agree(run):
    seam = seams.SeamPainter(run).seam(run.links[0])
    before, before_difference, after, after_difference = seams.paint(seam)
    saturation = [np.ptp(p.astype(int), axis=-1).mean() for p in (before, after)]
    assert saturation[1] < 0.2 * saturation[0]
    assert after_difference.mean() < 0.2 * before_difference.mean()


def test_seams_are_chosen_by_error_and_one_was_rejected(run):
    rejected = {0: {"kept": False, "reason": "no better than chance"}}
    chosen = seams.choose(changed(run, rejected))
    kept = [r for r in run.links[1:] if r["kept"]]
    by_stage = sorted(kept, key=lambda r: -r["stage_error_px"])[:2]
    assert [r["tile_a"] for r in chosen[:2]] == [r["tile_a"] for r in by_stage]
    assert len(chosen) == 4
    assert [r["kept"] for r in chosen] == [True, True, True, False]


def test_a_tile_that_failed_covers_nothing(run):
    failure = {"stage": "convert", "key": [0, 0, "t2"], "error": "OSError", "cause": ""}
    counts = fused.count_outlines(changed(run, failures=[failure]), run.canvas, 0, 0)
    assert counts[5, -5] == 0
    assert counts[5, 5] == counts[-5, -5] == 1


def test_outlines_lie_on_the_covered_voxels(run, monkeypatch):
    monkeypatch.setattr(fused, "_COVERAGE_PX", 4000)
    canvas = run.canvas
    stored = volume.open_volume(run.folder.coverage).level(0)
    exact = stored.read(Box.of_shape(stored.shape))[0, 0, 0]
    drawn = fused.count_outlines(run, canvas, 0, 0)
    assert drawn.shape == exact.shape
    # Voxels that a tile covers by half may be counted either way.
    assert np.mean(drawn != exact) < 0.05
    inside = ndimage.minimum_filter(exact, 5) == ndimage.maximum_filter(exact, 5)
    assert np.array_equal(drawn[inside], exact[inside])


def test_plane_pixels_lie_where_extent_says(run):
    """A tile's own corner is found in the picture of the fused volume: y down, x right."""
    placed = run.tile_of[TileKey(0, 0, "t5")]
    pixels = tifffile.imread(placed.source.images[0][0])
    plane = pictures.read_plane(run.folder.volume, (0, 0, 0), 2000)
    left, right, bottom, top = plane.extent(run.canvas.origin)
    assert (bottom - top, right - left) == plane.values.shape
    assert bottom > top
    y, x = (round(v) for v in np.array(placed.matrix)[:2, 2])
    row, column = y + 100 - round(top + 0.5), x + 100 - round(left + 0.5)
    part = plane.values[row : row + 50, column : column + 50]
    assert np.abs(part.astype(int) - pixels[100:150, 100:150]).mean() < 2
    assert reading.outline(placed)[2] == pytest.approx(np.array(placed.matrix)[:2, 2] + TILE - 0.5)


def test_reduced_plane_keeps_its_place(tmp_path):
    """A volume that holds its own x: each pixel shows the x at which its extent has it."""
    spec = volume.VolumeSpec(str(tmp_path / "v"), (1, 1, 1, 100, 301), "float32",
                             (1, 1, 1, 32, 32), (1, 1, 1, 128, 512),
                             factors=((1, 2, 2), (1, 2, 2), (1, 2, 2)))  # fmt: skip
    x = np.broadcast_to(np.arange(301, dtype=np.float32), spec.shape)
    volume.create(spec).write_with_levels(Box.of_shape(spec.shape), np.ascontiguousarray(x))
    for longest in (1000, 301, 200, 76, 40):
        plane = pictures.read_plane(spec.uri, (0, 0, 0), longest)
        left, right, _, _ = plane.extent((7, 11))
        width = plane.values.shape[1]
        assert width <= longest
        centres = left + (np.arange(width) + 0.5) * (right - left) / width - 11
        # The last pixel averages what there is.
        assert plane.values[3, :-2] == pytest.approx(centres[:-2], abs=0.15)


def test_large_plane_without_pyramid_is_cut_to_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_MOST_VOXELS", 64 * 64)
    spec = volume.VolumeSpec(str(tmp_path / "v"), (1, 1, 1, 256, 64), "uint8",
                             (1, 1, 1, 64, 64), (1, 1, 1, 64, 64))  # fmt: skip
    made = volume.create(spec)
    rows = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 64))
    for index in made.level(0).shard_grid.indices():
        box = made.level(0).shard_grid.box(index)
        made.level(0).write_shards(box, np.ascontiguousarray(rows[None, None, None][box.slices]))
    plane = pictures.read_plane(spec.uri, (0, 0, 0), 100)
    assert not plane.whole
    assert plane.start == (96, 0)
    assert np.array_equal(plane.values[:, 0], np.arange(96, 160))


def test_planes_shown_are_few_and_spread(run):
    def of(ndim, shape):
        return fused.planes(dataclasses.replace(run.canvas, ndim=ndim, shape=shape))

    assert of(2, (1, 1, 1, 9, 9)) == [(0, 0)]
    assert of(2, (1, 1, 10, 9, 9)) == [(0, 0), (0, 3), (0, 6), (0, 9)]
    assert of(2, (3, 1, 1, 9, 9)) == [(0, 0), (1, 0), (2, 0)]
    assert of(3, (1, 1, 30, 9, 9)) == [(0, 5), (0, 15), (0, 25)]


def test_worst_montages_come_first(run):
    def at(section, **changes):
        return [{**r, "section": section, **changes} for r in run.links]

    def moved(section):
        return [
            p._replace(source=p.source._replace(key=p.source.key._replace(section=section)))
            for p in run.placed
        ]

    links = [*at(0), *at(1, residual_px=0.9), *at(2, kept=False), *at(3)]
    lone = [{**run.tiles[0], "section": 3, "island": True}]
    many = dataclasses.replace(
        run, links=tuple(links), tiles=tuple(lone),
        placed=tuple(p for s in range(4) for p in moved(s)),
    )  # fmt: skip
    assert [k.section for k in many.worst_first()] == [3, 2, 1, 0]


def test_shading_is_shown(good, tmp_path):
    shutil.copytree(good, tmp_path / "out")
    done = reading.read_run(tmp_path / "out")
    flat = np.linspace(0.8, 1.2, TILE, dtype=np.float32) * np.ones((TILE, 1), np.float32)
    save_flat(done.folder, 0, Shading(flat, 3.5))
    gains = {p.source.key: [(1.0 + 0.05 * i, 0.0)] for i, p in enumerate(done.placed)}
    save_gains(done.folder, gains)
    part = greys.part(done)
    assert [len(group.pictures) for group in part.groups] == [1, 1]
    caption = part.groups[0].pictures[0].caption
    assert caption.endswith("between 0.800 and 1.200, after 3.5 was subtracted.")
    save_flat(done.folder, 0, Shading(flat**5))
    assert "more than the optics explain" in greys.part(done).groups[0].pictures[0].caption
    assert part.groups[1].text == "Between 1.000 and 1.250 over all tiles and channels."
    page = rewritten(tmp_path / "out")
    assert "greys" in page.sections
    assert "could not be drawn" not in page.text


def test_islands_and_failures_show_in_the_layout(run):
    key = MontageKey(0, 0)
    plain = decode(layout.draw(run, key, 1.0)).astype(int)
    island = decode(layout.draw(changed(run, tile_rows={5: {"island": True}}), key, 1.0))
    orange = np.array([0, 159, 230])  # BGR of the palette's orange

    def share(image):
        return np.mean(np.abs(image[..., :3].astype(int) - orange).sum(axis=-1) < 40)

    assert share(island) > share(plain) + 1e-3
    failure = {"stage": "convert", "key": [0, 0, "t2"], "error": "OSError", "cause": ""}
    hatched = decode(layout.draw(changed(run, failures=[failure]), key, 1.0)).astype(int)
    differs = np.abs(hatched - plain).sum(axis=-1).max(axis=0) > 60
    # t2 is the tile at the upper right.
    assert differs[int(0.7 * differs.size) :].any()
    assert not differs[: int(0.4 * differs.size)].any()


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
