"""Fiji's and MIST's text files."""

import numpy as np
import pytest
import tifffile

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileOptions, read_tiles

FIJI = """# Define the number of dimensions we are working on
dim = 2

# Define the image coordinates
a_1.tif; ; (0.0, 0.0)
a 2.tif; ; (27.5, -3.25)
"""
MIST = """file: a_1.tif; corr: -1.0000000000; position: (0, 0); grid: (0, 0);
file: a 2.tif; corr: 0.9811; position: (27, 3); grid: (1, 0);
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("a_1.tif", "a 2.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((20, 30), np.uint8))
    return tmp_path


def places(source, **options):
    return {t.tile: t.position for t in read_tiles(str(source), options=TileOptions(**options))}


@pytest.mark.parametrize("name", ["TileConfiguration.txt", "TileConfiguration.registered.txt"])
def test_fiji(folder, name):
    (folder / name).write_text(FIJI)
    assert places(folder / name) == {"a_1": (0, 0), "a 2": (-3.25, 27.5)}
    assert places(folder) == places(folder / name)


def test_fiji_elsewhere(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("list") / "t.txt"
    path.write_text(FIJI)
    assert len(places(path, images=str(folder))) == 2


def test_fiji_in_3d(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((4, 8, 9), np.uint8), photometric="minisblack")
    (tmp_path / "t.txt").write_text("dim=3\nv.tif; ; (1.0, 2.0, 3.0)\n")
    assert places(tmp_path / "t.txt") == {"v": (3, 2, 1)}


def test_fiji_series(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(np.zeros((8, 9), np.uint8))
        writer.write(np.ones((8, 9), np.uint16)[:, :5].astype(np.uint8))
    lines = "dim = 2\nmultiSeries = true\nm.tif; 0; (0, 0)\nm.tif; 1; (8, 0)\n"
    (tmp_path / "t.txt").write_text(lines)
    tiles = read_tiles(str(tmp_path / "t.txt"))
    assert [(t.tile, t.images[0].series) for t in tiles] == [("m", 0), ("m_s1", 1)]
    assert [t.shape for t in tiles] == [(8, 9), (8, 5)]


def test_mist(folder):
    (folder / "img-global-positions-0.txt").write_text(MIST)
    assert places(folder) == {"a_1": (0, 0), "a 2": (3, 27)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FIJI.replace("27.5", "nan"), "not a finite number"),
        (FIJI.replace("27.5", "left"), "not a finite number"),
        (FIJI.replace("27.5, ", ""), "wrong number of coordinates"),
        (FIJI + "a_1.tif (3, 4)\n", r"line of the list cannot be read[\s\S]*line 7"),
        (FIJI + "a_1.tif; ; (3, 4)\n", "duplicate tile"),
        (MIST.replace("position", "pos"), "line of the list cannot be read"),
        ("hello\n", "no known format"),
        ("dim = 2\n", "is empty"),
    ],
)
def test_broken_lists(folder, text, message):
    (folder / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_tiles(str(folder / "t.txt"))


def test_two_lists_in_a_folder(folder):
    (folder / "TileConfiguration.txt").write_text(FIJI)
    (folder / "TileConfiguration.registered.txt").write_text(FIJI)
    with pytest.raises(InputError, match="several tile lists") as caught:
        read_tiles(str(folder))
    assert "TileConfiguration.registered.txt" in caught.value.got
    (folder / "TileConfiguration.registered.txt").unlink()
    (folder / "p.txt").write_text(MIST)
    assert places(folder, format="mist")["a 2"] == (3, 27)
    assert places(folder, format="fiji")["a 2"] == (-3.25, 27.5)
