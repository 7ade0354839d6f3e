"""Tile lists as tables, and known matrices beside them."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileOptions, check_tiles, read_tiles
from warpbeam.transforms.storage.tiles.natural import natural
from warpbeam.transforms.storage.tiles.table import read_table

SHAPE = (20, 30)


@pytest.fixture
def folder(tmp_path):
    for k in range(4):
        tifffile.imwrite(tmp_path / f"t{k}.tif", np.full(SHAPE, k, np.uint8))
    return tmp_path


def write(folder, text):
    (folder / "tiles.csv").write_text(text)
    return str(folder / "tiles.csv")


def positions(tiles):
    return {t.tile: t.position for t in tiles}


def test_pixels(folder):
    tiles = read_tiles(write(folder, "file,x,y\nt1.tif,27.5,-3\nt0.tif,0,0\n"))
    assert positions(tiles) == {"t0": (0.0, 0.0), "t1": (-3.0, 27.5)}
    assert [t.tile for t in tiles] == ["t0", "t1"]
    first = tiles.tiles[0]
    assert (first.shape, first.dtype, first.key) == (SHAPE, "uint8", (0, 0, "t0"))
    assert (tiles.ndim, tiles.channels, tiles.voxel_um) == (2, ("0",), None)
    np.testing.assert_array_equal(
        tiles.tiles[1].world_matrix(), [[1, 0, -3], [0, 1, 27.5], [0, 0, 1]]
    )
    check_tiles(tiles)


@pytest.mark.parametrize("text", ["file;y;x\nt0.tif;1;2\n", "# note\nfile\ty\tx\n\nt0.tif\t1\t2\n"])
def test_other_delimiters_comments_and_byte_order_mark(folder, text):
    (folder / "tiles.csv").write_text(text, encoding="utf-8-sig")
    assert positions(read_tiles(str(folder / "tiles.csv"))) == {"t0": (1.0, 2.0)}


def test_micrometres(folder):
    text = "file,y_um,x_um,voxel_um\nt0.tif,0,0,0.5\nt1.tif,1,13,0.5\n"
    tiles = read_tiles(write(folder, text))
    assert positions(tiles)["t1"] == (2.0, 26.0)
    assert tiles.voxel_um == (0.5, 0.5)
    path = write(folder, "file,y_um,x_um\nt0.tif,0,0\nt1.tif,1,13\n")
    with pytest.raises(InputError, match="voxel size is not known"):
        read_tiles(path)
    options = TileOptions(voxel_um=(9.0, 0.25, 0.5), flip_x=True, swap_xy=True)
    # The stage's x (13) runs along the image's y, its y (1) against the image's x.
    assert positions(read_tiles(path, options=options))["t1"] == (13 / 0.25, -1 / 0.5)


def test_sections_times_channels_and_masks(folder):
    tifffile.imwrite(folder / "mask.tif", np.ones(SHAPE, np.uint8))
    text = (
        "file,y,x,tile,section,time,channel,mask\n"
        "t0.tif,0,0,a,2,0,red,mask.tif\nt1.tif,0,0,a,2,0,blue,mask.tif\n"
        "t2.tif,5,0,a,1,1,red,\nt3.tif,5,0,a,1,1,blue,\n"
    )
    tiles = read_tiles(write(folder, text))
    assert [t.key for t in tiles] == [(1, 1, "a"), (0, 2, "a")]
    assert tiles.channels == ("blue", "red")
    assert [i.file[-6:] for i in tiles.tiles[1].images] == ["t1.tif", "t0.tif"]
    assert tiles.tiles[0].mask is None
    assert tiles.tiles[1].mask.file.endswith("mask.tif")
    assert set(tiles.montages()) == {(1, 1), (0, 2)}


def test_channels_without_tile_names_are_gathered_by_place(folder):
    rows = ["t0.tif,0,0,g", "t1.tif,0,0,r", "t2.tif,0,25,g", "t3.tif,0,25,r"]
    for order in (rows, rows[::-1]):
        tiles = read_tiles(write(folder, "\n".join(["file,y,x,channel", *order])))
        assert positions(tiles) == {"t0": (0.0, 0.0), "t2": (0.0, 25.0)}
        assert tiles.channels == ("g", "r")


def test_channels_and_times_inside_a_file(tmp_path):
    array = np.zeros((2, 3, 8, 9), np.uint8)
    for k in range(2):
        tifffile.imwrite(
            tmp_path / f"t{k}.ome.tif", array, metadata={"axes": "TCYX"}, photometric="minisblack"
        )
    tiles = read_tiles(write(tmp_path, "file,y,x\nt0.ome.tif,0,0\nt1.ome.tif,0,8\n"))
    assert [t.key for t in tiles] == [(0, 0, "t0"), (0, 0, "t1"), (1, 0, "t0"), (1, 0, "t1")]
    assert tiles.channels == ("0", "1", "2")
    assert [(i.channel, i.time) for i in tiles.tiles[2].images] == [(0, 1), (1, 1), (2, 1)]
    picked = read_tiles(write(tmp_path, "file,y,x,channel,time\nt0.ome.tif,0,0,2,1\n"))
    assert [(i.channel, i.time) for i in picked.tiles[0].images] == [(2, 1)]


def test_volumes_take_z_or_leave_it_at_0(tmp_path):
    tifffile.imwrite(tmp_path / "t0.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    assert read_tiles(write(tmp_path, "file,z,y,x\nt0.tif,7,1,2\n")).tiles[0].position == (7, 1, 2)
    assert read_tiles(write(tmp_path, "file,y,x\nt0.tif,1,2\n")).tiles[0].position == (0, 1, 2)


def test_matrix_columns(folder):
    text = "file,m00,m01,m02,m10,m11,m12\nt0.tif,1,0.1,5,-0.1,1,7\n"
    tile = read_tiles(write(folder, text)).tiles[0]
    assert tile.matrix == ((1, 0.1, 5), (-0.1, 1, 7))
    assert tile.position == (5, 7)
    text = "file,m00,m01,m02,m10,m11,m12,m20,m21,m22\nt0.tif,1,0,5,0,1,7,0.001,0,2\n"
    tile = read_tiles(write(folder, text)).tiles[0]
    assert tile.position == (2.5, 3.5)  # the perspective's third row divides
    with pytest.raises(InputError, match="do not fit together"):
        read_tiles(write(folder, "file,m00,m01\nt0.tif,1,0\n"))
    with pytest.raises(InputError, match="cannot be used"):  # singular
        read_tiles(write(folder, "file,m00,m01,m02,m10,m11,m12\nt0.tif,1,1,0,1,1,0\n"))


@pytest.mark.parametrize("style", ["{}.tif", "{}", "0/0/{}"])
def test_matrices_from_json(folder, style):
    rows = {k: [[1, 0, k], [0, 1, 10 * k]] for k in range(4)}
    path = folder / "known.json"
    path.write_text(json.dumps({style.format(f"t{k}"): {"matrix": m} for k, m in rows.items()}))
    tiles = read_tiles(str(folder), options=TileOptions(transforms=str(path)))
    assert positions(tiles) == {f"t{k}": (k, 10 * k) for k in range(4)}
    path.write_text(json.dumps({"t0": {"matrix": rows[0]}}))
    with pytest.raises(InputError, match=r"no matrix; did you mean t0\?"):
        read_tiles(str(folder), options=TileOptions(transforms=str(path)))
    path.write_text(json.dumps({"t0": [1, 2]}))
    with pytest.raises(InputError, match="matrix cannot be used"):
        read_tiles(str(folder), options=TileOptions(transforms=str(path)))


def test_a_json_key_that_fits_two_tiles_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "t.tif", np.zeros(SHAPE, np.uint8))
    (tmp_path / "m.json").write_text(json.dumps({"t": {"matrix": [[1, 0, 0], [0, 1, 0]]}}))
    path = write(tmp_path, "file,y,x\na/t.tif,0,0\nb/t.tif,0,9\n")
    assert [t.tile for t in read_tiles(path)] == ["a_t", "b_t"]
    with pytest.raises(InputError, match="fits the tiles"):
        read_tiles(path, options=TileOptions(transforms=str(tmp_path / "m.json")))


def test_fingerprint(folder):
    rows = ["t0.tif,0,0", "t1.tif,0,25", "t2.tif,15,0"]
    mark = read_tiles(write(folder, "\n".join(["file,y,x", *rows]))).fingerprint()
    assert read_tiles(write(folder, "\n".join(["file,y,x", *rows[::-1]]))).fingerprint() == mark
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert read_tiles(str(moved / "tiles.csv")).fingerprint() == mark
    tifffile.imwrite(moved / "t0.tif", np.full(SHAPE, 9, np.uint8))
    changed = read_tiles(str(moved / "tiles.csv")).fingerprint()
    assert changed != mark
    rows[0] = "t0.tif,0,0.001"
    assert read_tiles(write(moved, "\n".join(["file,y,x", *rows]))).fingerprint() != changed


finite = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abc_12, ;\"'é", min_size=1).filter(lambda s: s == s.strip()),
        st.tuples(finite, finite),
        min_size=1,
    ),
    st.booleans(),
)
def test_table_round_trip(tmp_path, places, parquet):
    columns = {
        "file": list(places),
        "y": [y for y, _ in places.values()],
        "x": [x for _, x in places.values()],
    }
    path = tmp_path / ("t.parquet" if parquet else "t.csv")
    if parquet:
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *zip(*columns.values(), strict=True)])
    rows = read_table(str(path), "")
    assert {row.name: row.position for row in rows} == places


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_natural_order_counts(a, b):
    assert (natural(f"tile_{a}.tif") < natural(f"tile_{b}.tif")) == (a < b)
