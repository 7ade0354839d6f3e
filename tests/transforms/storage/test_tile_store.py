"""Converted tiles: written by row and channel, read in boxes."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.tile_store import TileStore


@pytest.mark.parametrize("spatial", [(40, 700), (5, 30, 200)])
def test_boxes_of_what_was_written(tmp_path, spatial):
    rng = np.random.default_rng(0)
    uri = str(tmp_path / "tiles.zarr")
    shape = (3, 2, *spatial)
    stored = TileStore.create(uri, shape, "uint16")
    pixels = rng.integers(0, 65536, shape).astype(np.uint16)
    for row in (0, 2):
        for channel in (0, 1):
            assert stored.write(row, channel, pixels[row, channel]) == pixels[0, 0].nbytes
    box = Box(tuple(n // 4 for n in spatial), tuple(n - 1 for n in spatial))
    opened = TileStore.open(uri)
    np.testing.assert_array_equal(opened.read(2, 1, box), pixels[2, 1][box.slices])
    np.testing.assert_array_equal(opened.read(1, 0, box), np.zeros(box.shape))  # not written


def test_a_smaller_tile_lies_at_the_low_corner(tmp_path):
    stored = TileStore.create(str(tmp_path / "t"), (1, 1, 50, 60), "float32")
    small = np.ones((20, 30), np.float32)
    stored.write(0, 0, small)
    found = stored.read(0, 0, Box.of_shape((50, 60)))
    assert found.sum() == small.sum()
    assert (found[:20, :30] == 1).all()


def test_creating_again_opens(tmp_path):
    uri = str(tmp_path / "t")
    TileStore.create(uri, (1, 1, 8, 8), "uint8").write(0, 0, np.full((8, 8), 5, np.uint8))
    again = TileStore.create(uri, (1, 1, 8, 8), "uint8")
    assert (again.read(0, 0, Box.of_shape((8, 8))) == 5).all()
