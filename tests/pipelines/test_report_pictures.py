"""The report: what it shows is where it belongs."""

import dataclasses
import shutil

import numpy as np
import pytest
import tifffile
from report_pages import (
    STEP,
    TILE,
    changed,
    decode,
    rewritten,
    stitched,
)
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading
from warpbeam.pipelines.report import fused, greys, layout, pictures, reading, seams
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.shading import save_flat, save_gains
from warpbeam.transforms.storage import volume


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return stitched(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def run(good):
    return reading.read_run(good)


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
