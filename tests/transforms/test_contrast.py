"""Contrast of tiles that are made comparable first."""

import numpy as np
import pytest
import tifffile

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import evened
from warpbeam.kernels.shading.correction import Shading
from warpbeam.transforms.contrast import ContrastSettings, EvenTiles, MeasureRange
from warpbeam.transforms.shading import save_gains
from warpbeam.transforms.storage.ledger import Ledger
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import read_tiles
from warpbeam.transforms.tiles import TileReader, save_sources, sources_of

SHAPE = (150, 170)


@pytest.fixture
def run(tmp_path):
    image = np.random.default_rng(0).integers(40, 80, SHAPE).astype(np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", image)
    (tmp_path / "tiles.csv").write_text("file,y,x\nt.tif,0,0\n")
    sources = sources_of(read_tiles(str(tmp_path / "tiles.csv")), direct=True)
    folder = RunFolder(str(tmp_path / "run"))
    save_sources(folder, sources)
    return folder, sources[0], image


def measured(run):
    work = MeasureRange(run, Ledger(run.uri, "convert", "x"), "uint8")
    work.setup()
    return work(("channel", 0), "mark")


@pytest.mark.parametrize(("gain", "low", "high"), [(1.0, 40, 79), (2.0, 80, 158), (4.0, 160, 255)])
def test_the_range_is_that_of_corrected_pixels_as_far_as_their_type_reaches(run, gain, low, high):
    folder, source, _ = run
    save_gains(folder, {source.key: [(gain, 0.0)]})
    found = measured(folder)
    margin = gain * 39 / 10
    assert found["low"] == pytest.approx(low - margin, abs=1.5 * gain)
    assert found["high"] == pytest.approx(min(high + margin, 255), abs=1.5 * gain)


@pytest.mark.parametrize("how", ["local", "clahe"])
def test_a_box_of_a_corrected_tile_is_that_of_the_whole(run, how):
    folder, source, image = run
    found = measured(folder)
    tiles = EvenTiles(folder, TileReader(folder), ContrastSettings(how, 32))
    expected = evened(image.astype(np.float32) + 10, how, 32, (found["low"], found["high"]))
    for box in (Box.of_shape(SHAPE), Box((50, 60), (90, 100)), Box((0, 130), (40, 170))):
        even = tiles.read(source, 0, Shading(offset=10.0), box)
        np.testing.assert_allclose(even, expected[box.slices], atol=1.0)
