"""Elastic `stitch` of tiles that are volumes, and bend along z too."""

import numpy as np
import pytest
from bent_tiles import NOISE, BentTiles, bend_of
from phantoms import Waves
from running import object_hashes, pixels, stitch

from warpbeam.transforms.storage import displacements
from warpbeam.transforms.storage.run_folder import RunFolder

SHAPE, STEP = (32, 112, 112), 72
TRUTH = Waves.random(8, 3, wavelengths=(6, 40), count=80)
BENT = {
    "elastic": {"enabled": True, "patch_px": 24, "stride_px": 12, "finest": 1},
    "link": {"search_px": 12, "reduction": 1},
    "shading": {"flatfield": "off", "gain": "off"},
}
POINTS = np.stack(np.mgrid[2:30:3, 0:190:4, 0:190:4], -1).reshape(-1, 3).astype(float)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "tiles"
    nominal = [(0, *(np.array(divmod(k, 2)) * STEP)) for k in range(4)]
    bends = [bend_of(k, (0.8, 2.0, 2.0), 160) for k in range(4)]
    return BentTiles(folder, TRUTH, SHAPE, nominal, bends, (1.5, 3, 3))


@pytest.fixture(scope="module")
def stitched(tiles, tmp_path_factory):
    run = tmp_path_factory.mktemp("stitched") / "run"
    return run, stitch(tiles.list, run, **BENT)


def test_bent_volumes_meet(tiles, stitched):
    run, outcome = stitched
    rigid, elastic = (tiles.seams(run, POINTS, bent=bent) for bent in (False, True))
    assert np.median(rigid) > 0.7
    assert np.median(elastic) < 0.15
    assert np.quantile(elastic, 0.95) < 0.5
    assert outcome.numbers["tiles_bent"] == 4
    assert outcome.numbers["tiles_folded"] == 0


def test_maps_bend_along_every_axis(stitched):
    for k in range(4):
        field = displacements.load(RunFolder(str(stitched[0])).map(f"t{k}"))
        assert (np.abs(field.read().u).reshape(3, -1).max(axis=1) > 0.3).all()


def test_the_volume_shows_the_truth_where_tiles_overlap(tiles, stitched):
    """Up to a smooth bend of all tiles together, which nothing tells: the blend of tiles that
    meet keeps the contrast of each, and averages their noise."""
    volume = pixels(stitched[0])[0, 0].astype(float)
    z, y, _ = volume.shape
    seam = volume[8 : z - 8, y // 2 - 12 : y // 2 + 12, 12:60]
    alone = volume[8 : z - 8, 12:36, 12:60]
    assert np.diff(seam, axis=2).std() > 0.85 * np.diff(alone, axis=2).std()
    assert np.diff(alone, axis=2).std() > NOISE


def test_any_shard_and_workers_give_the_same_bytes(tiles, stitched, tmp_path):
    volume = {"shard_3d": (32, 64, 64)}
    stitch(tiles.list, tmp_path / "run", **BENT, volume=volume, run={"workers": 1})
    np.testing.assert_array_equal(pixels(tmp_path / "run"), pixels(stitched[0]))
    assert object_hashes(tmp_path / "run" / "maps") == object_hashes(stitched[0] / "maps")
