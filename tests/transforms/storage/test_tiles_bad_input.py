"""Each mistake in a tile list is refused before work starts, and the message says what to do."""

import numpy as np
import pytest
import tifffile

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles import TileOptions, check_tiles, read_tiles

ROWS = [f"t{k}.tif,0,{25 * k}" for k in range(5)]


@pytest.fixture
def folder(tmp_path):
    for k in range(5):
        tifffile.imwrite(tmp_path / f"t{k}.tif", np.zeros((20, 30), np.uint8))
    return tmp_path


def listed(folder, rows, header="file,y,x", **options):
    (folder / "tiles.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_tiles(str(folder / "tiles.csv"), options=TileOptions(**options))


def refused(message, folder, rows, header="file,y,x", **options):
    with pytest.raises(InputError, match=message) as caught:
        listed(folder, rows, header, **options)
    error = caught.value
    assert all((error.what, error.where, error.expected, error.got, error.fix))
    return error


def test_missing_file_and_how_many_more(folder):
    for k in (2, 1, 4):
        (folder / f"t{k}.tif").unlink()
    error = refused(r"does not exist \(2 more have problems too\)", folder, ROWS)
    assert error.where.endswith("t1.tif")


def test_truncated_and_unreadable_files(folder):
    data = (folder / "t3.tif").read_bytes()
    (folder / "t3.tif").write_bytes(data[:-40])
    assert refused("is truncated", folder, ROWS).where.endswith("t3.tif")
    (folder / "t3.tif").write_bytes(b"<html>404</html>")
    assert refused("cannot be read", folder, ROWS).where.endswith("t3.tif")


def test_two_dtypes(folder):
    tifffile.imwrite(folder / "t2.tif", np.zeros((20, 30), np.uint16))
    error = refused("two dtypes", folder, ROWS)
    assert error.where.endswith("t2.tif")
    assert "uint16" in error.got
    assert "uint8" in error.expected


def test_2d_mixed_with_3d(folder):
    volume = np.zeros((4, 20, 30), np.uint8)
    tifffile.imwrite(folder / "t2.tif", volume, photometric="minisblack")
    assert refused("2-D images are mixed", folder, ROWS).where.endswith("t2.tif")


@pytest.mark.parametrize(
    ("header", "nearest"),
    [
        ("file,y,x,secton", "section"),
        ("file,y,X", "x"),
        ("filename,y,x", "file"),
        ("file,y,x_px", "x"),
    ],
)
def test_unknown_column(folder, header, nearest):
    rows = ["t0.tif,0,0,0" if header.count(",") == 3 else "t0.tif,0,0"]
    assert (
        nearest in refused(f"unknown column; did you mean {nearest}\\?", folder, rows, header).what
    )


@pytest.mark.parametrize("value", ["nan", "", "inf", "left", "1;5"])
def test_position_that_is_no_number(folder, value):
    error = refused("not a finite number", folder, [*ROWS[:2], f"t2.tif,0,{value}"])
    assert "row 3" in error.where
    assert "t2.tif" in error.where


@pytest.mark.parametrize(
    "header",
    ["file,y,y_um", "file,y,z", "file,y_um,z_um", "file,y,tile", "y,x,tile", "file,y,y"],
)
def test_columns_that_do_not_fit_together(folder, header):
    refused("do not fit together", folder, ["t0.tif,0,1"], header)


def test_no_position_at_all(folder):
    refused("has no position", folder, ["t0.tif,0"], "file,section")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("file,y,x", [*ROWS, "t1.tif,9,9"]),
        ("file,y,x", [*ROWS, "./t1.tif,9,9"]),
        ("file,y,x,tile", ["t0.tif,0,0,a", "t1.tif,0,9,a"]),
        ("file,y,x,tile,channel", ["t0.tif,0,0,a,g", "t1.tif,0,0,a,g"]),
        ("file,y,x,tile", ["t0.tif,0,0,a", "t0.tif,0,9,b"]),
    ],
)
def test_duplicate_tiles(folder, header, rows):
    refused("duplicate tile", folder, rows, header)


def test_channels_that_lack_or_differ(folder):
    header = "file,y,x,tile,channel"
    rows = ["t0.tif,0,0,a,g", "t1.tif,0,0,a,r", "t2.tif,0,9,b,g"]
    assert "'b'" in refused("lacks a channel", folder, rows, header).where
    refused("channels of a tile differ", folder, ["t0.tif,0,0,a,g", "t1.tif,0,9,a,r"], header)


def test_rows_and_lists_that_are_not_whole(folder):
    refused("wrong number of cells", folder, ["t0.tif,0"])
    refused("is empty", folder, [])
    refused("names no file", folder, [",0,1"])
    refused("section is not a whole number", folder, ["t0.tif,0,0,1.5"], "file,y,x,section")
    refused("position in z", folder, ["t0.tif,0,0,0"], "file,z,y,x")
    refused("cannot be of this format", folder, ROWS, format="excel")
    refused("voxel size cannot be used", folder, ROWS, voxel_um=-1.0)
    with pytest.raises(InputError, match="does not exist"):
        read_tiles(str(folder / "none.csv"))


def test_mask_of_another_shape(folder):
    tifffile.imwrite(folder / "m.tif", np.ones((20, 31), np.uint8))
    refused("mask has another shape", folder, ["t0.tif,0,0,m.tif"], "file,y,x,mask")
    refused("does not exist", folder, ["t0.tif,0,0,none.tif"], "file,y,x,mask")


def test_colour_images_are_refused_before_work_starts(folder):
    colour = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    tifffile.imwrite(folder / "t0.tif", colour, photometric="rgb")
    refused("is in colour", folder, ROWS)


def test_files_that_changed_since_the_list_was_read(folder):
    tiles = listed(folder, ROWS)
    check_tiles(tiles)
    tifffile.imwrite(folder / "t4.tif", np.zeros((20, 31), np.uint8))
    with pytest.raises(InputError, match="not what the tile list was made from"):
        check_tiles(tiles)
    (folder / "t1.tif").unlink()
    with pytest.raises(InputError, match=r"does not exist \(1 more"):
        check_tiles(tiles)
