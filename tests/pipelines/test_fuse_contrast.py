"""`fuse` with even contrast: what is drawn is what the kernel makes of whole tiles."""

import json

import numpy as np
import pytest
from phantoms import damage, write_list, write_tiff
from running import fuse, markers, object_hashes, pixels

from warpbeam.kernels.shading.contrast import evened
from warpbeam.transforms.storage.errors import InputError

SHAPE, OVERLAP = (200, 240), 40


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two tiles of noise side by side, whose contrast falls to the right."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    width = 2 * SHAPE[1] - OVERLAP
    grey = 90 + rng.normal(0, 30, (SHAPE[0], width)) * np.linspace(1, 0.25, width)
    whole = np.clip(np.rint(grey), 1, 255).astype(np.uint8)
    rows = []
    for k in range(2):
        x = k * (SHAPE[1] - OVERLAP)
        write_tiff(folder / f"t{k}.tif", whole[:, x : x + SHAPE[1]])
        rows.append({"file": f"t{k}.tif", "y": 0, "x": x})
    return write_list(folder / "tiles.csv", rows), whole


def shading(how):
    return {"contrast": how, "contrast_px": 64, "gain": "off"}


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_tiles_are_drawn_with_even_contrast(tiles, tmp_path, how):
    fuse(tiles[0], tmp_path / "run", shading=shading(how))
    grey = json.loads((tmp_path / "run" / "shading" / "range_c0.json").read_text())
    assert 0 <= grey[0] < 20
    assert 160 < grey[1] <= 255
    drawn = pixels(tmp_path / "run")[0, 0, 0].astype(float)
    alone = SHAPE[1] - OVERLAP
    first = evened(tiles[1][:, : SHAPE[1]].astype(np.float32), how, 64, tuple(grey))
    second = evened(tiles[1][:, alone:].astype(np.float32), how, 64, tuple(grey))
    np.testing.assert_allclose(drawn[:, :alone], first[:, :alone], atol=1)
    np.testing.assert_allclose(drawn[:, -alone:], second[:, -alone:], atol=1)
    fall, fall_before = (i[:, -100:-20].std() / i[:, 20:100].std() for i in (drawn, tiles[1]))
    assert fall_before < 0.5
    assert fall > {"local": 0.75, "clahe": 1.1 * fall_before}[how]


def test_shards_and_workers_do_not_matter(tiles, tmp_path):
    small = {"chunk_2d": (64, 64), "shard_2d": (64, 128), "pyramid": False}
    large = {"chunk_2d": (64, 64), "shard_2d": (256, 512), "pyramid": False}
    fuse(tiles[0], tmp_path / "a", ["--direct_num_workers=2"], shading=shading("clahe"),
         volume=small)  # fmt: skip
    fuse(tiles[0], tmp_path / "b", shading=shading("clahe"), volume=large)
    np.testing.assert_array_equal(pixels(tmp_path / "a"), pixels(tmp_path / "b"))


def test_a_second_run_does_nothing_and_a_changed_tile_is_seen(tiles, tmp_path):
    import shutil

    folder = tmp_path / "in"
    shutil.copytree(tiles[0].parent, folder)
    listed, run = folder / "tiles.csv", tmp_path / "run"
    fuse(listed, run, shading=shading("local"))
    before, bytes_before = markers(run), object_hashes(run / "volume.ome.zarr")
    fuse(listed, run, shading=shading("local"))
    assert markers(run) == before
    write_tiff(folder / "t1.tif", tiles[1][:, : SHAPE[1]] // 2)
    fuse(listed, run, shading=shading("local"))
    fuse(listed, tmp_path / "fresh", shading=shading("local"))
    assert object_hashes(run / "volume.ome.zarr") != bytes_before
    np.testing.assert_array_equal(pixels(run), pixels(tmp_path / "fresh"))


def test_a_corrupt_tile_is_left_out(tiles, tmp_path):
    import shutil

    folder = tmp_path / "in"
    shutil.copytree(tiles[0].parent, folder)
    damage(folder / "t1.tif")
    outcome = fuse(folder / "tiles.csv", tmp_path / "run", expect=1, shading=shading("clahe"))
    assert not outcome.stopped
    assert "contrast" not in {f.stage for f in outcome.failures}
    assert (pixels(tmp_path / "run")[0, 0, 0, :, : SHAPE[1] - OVERLAP] > 0).mean() > 0.95


def test_volumes_are_refused(tmp_path):
    write_tiff(tmp_path / "t.tif", np.ones((4, 32, 32), np.uint8))
    listed = write_list(tmp_path / "tiles.csv", [{"file": "t.tif", "z": 0, "y": 0, "x": 0}])
    with pytest.raises(InputError, match="2-D tiles only"):
        fuse(listed, tmp_path / "run", shading=shading("local"))
