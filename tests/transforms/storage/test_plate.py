"""Plates: selection, tables, sites, and what is wrong with them."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from plates import write_plate, write_rows

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.plate import Selection, read_plate
from warpbeam.transforms.storage.plate.reading import PlateOptions
from warpbeam.transforms.storage.plate.selection import (
    chosen_channels,
    chosen_times,
    chosen_wells,
    row_name,
    well_place,
)

WELLS = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("A1-B3", {"A1", "A2", "A3", "B1", "B2", "B3"}),
        ("B3-A1", {"A1", "A2", "A3", "B1", "B2", "B3"}),
        ("A1,C12", {"A1", "C12"}),
        ("A1 - A2, H12", {"A1", "A2", "H12"}),
        ("B02", {"B2"}),
        ("G11-Z48", {"G11", "G12", "H11", "H12"}),
        ("all", set(WELLS)),
    ],
)
def test_wells_are_names_and_rectangles(given, expected):
    assert chosen_wells(given, "include", WELLS) == expected
    if given != "all":
        assert chosen_wells(given, "exclude", WELLS) == set(WELLS) - expected


def test_times_and_channels():
    assert chosen_times("T0-T2,5", "include", range(8)) == {0, 1, 2, 5}
    assert chosen_times("T0-T2,5", "exclude", range(8)) == {3, 4, 6, 7}
    assert chosen_times("T2-T0", "include", range(8)) == {0, 1, 2}
    assert chosen_times("all", "exclude", range(3)) == {0, 1, 2}
    assert chosen_channels("DAPI, GFP", "include", ["DAPI", "GFP", "RFP"]) == {"DAPI", "GFP"}
    assert chosen_channels("DAPI", "exclude", ["DAPI", "GFP"]) == {"GFP"}


@pytest.mark.parametrize("name", ["A0", "AG1", "A49", "1A", "", "AAA1", "A-1"])
def test_no_well_of_any_plate(name):
    with pytest.raises(InputError, match="a well's name is out of range"):
        well_place(name, "plate.csv, row 1")


def test_rows_of_wells_have_names():
    assert [row_name(r) for r in (0, 25, 26, 31)] == ["A", "Z", "AA", "AF"]
    for name in ("A1", "Z48", "AA1", "AF48"):
        row, column = well_place(name, "")
        assert f"{row_name(row)}{column + 1}" == name


def test_what_is_not_there_cannot_be_chosen():
    for call in (
        lambda: chosen_wells("C1", "include", ["A1"]),
        lambda: chosen_times("9", "include", [0, 1]),
        lambda: chosen_channels("GFP", "include", ["DAPI"]),
    ):
        with pytest.raises(InputError, match="not on the plate"):
            call()


def test_a_plate_is_its_sites_in_natural_order(tmp_path):
    table = write_plate(tmp_path, wells=("B2", "A10", "A9"), times=2, tiles=1)
    plate = read_plate(str(table), Selection())
    names = [site.key.name for site in plate.sites]
    assert names == ["A9_T0_1", "A9_T1_1", "A10_T0_1", "A10_T1_1", "B2_T0_1", "B2_T1_1"]
    assert plate.channels == ("actin", "nuclei")
    assert {site.shape for site in plate.sites} == {(96, 120)}
    chosen = read_plate(str(table), Selection(wells="A1-A12", timepoints="T1", channels="actin"))
    assert [s.key.name for s in chosen.sites] == ["A9_T1_1", "A10_T1_1"]
    assert chosen.sites[0].channels == ("actin",)


def test_one_well_in_several_spellings_is_one(tmp_path):
    """Named as it is first; no image is lost."""
    for k in range(4):
        tifffile.imwrite(tmp_path / f"{k}.tif", np.zeros((50, 60), np.uint16))
    rows = [
        {"well": well, "tile": tile, "file": f"{k}.tif"}
        for k, (well, tile) in enumerate([("A01", 1), ("a1", 2), ("B2", 1), ("A1", 3)])
    ]
    table = str(write_rows(tmp_path / "plate.csv", rows))
    names = {site.key.name for site in read_plate(table, Selection()).sites}
    assert names == {"A01_T0_1", "A01_T0_2", "A01_T0_3", "B2_T0_1"}
    assert len(read_plate(table, Selection(wells="A001")).sites) == 3


def test_tables_of_pandas_are_read(tmp_path):
    """With an index of rows that were taken out, and NaN for what is missing."""
    import pyarrow as pa
    from pyarrow import parquet

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 60), np.uint16))
    columns = {"well": ["A1"], "file": ["a.tif"], "hours": [float("nan")],
               "__index_level_0__": [7]}  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "plate.parquet")
    (site,) = read_plate(str(tmp_path / "plate.parquet"), Selection()).sites
    assert (site.key.well, site.hours) == ("A1", None)


def test_what_a_plate_may_grow_by(tmp_path):
    table = write_plate(tmp_path / "a", wells=("A1", "B2"), times=3, tiles=2)
    whole = read_plate(str(table), Selection())

    def part(**chosen):
        return read_plate(str(table), Selection(**chosen)).sites

    for chosen in ({}, {"wells": "A1"}, {"timepoints": "T0-T1"}, {"tile": 1}):
        assert whole.extends(part(**chosen))
    assert not whole.extends(part(timepoints="T1-T2"))
    assert not whole.extends(part(channels="nuclei"))
    assert not read_plate(str(table), Selection(wells="A1")).extends(whole.sites)
    first = part(timepoints="T0")
    assert not whole.extends([replace(site, shape=(9, 9)) for site in first])
    assert whole.extends([replace(site, version="another") for site in first])


def test_a_folder_with_a_pattern_is_the_same_plate(tmp_path):
    table = write_plate(tmp_path)
    pattern = PlateOptions(pattern="{well}_T{timepoint}_{tile}_{channel}.tif")
    found = read_plate(str(tmp_path), Selection(), pattern)
    assert found == read_plate(str(table), Selection())


def test_parquet_is_the_same_plate(tmp_path):
    from pyarrow import csv, parquet

    table = write_plate(tmp_path)
    parquet.write_table(csv.read_csv(table), tmp_path / "plate.parquet")
    assert read_plate(str(tmp_path / "plate.parquet"), Selection()) == read_plate(
        str(table), Selection()
    )


def test_rows_that_name_one_file_are_a_montage(tmp_path):
    tifffile.imwrite(tmp_path / "montage.tif", np.zeros((50, 60), np.uint16))
    rows = [{"well": "A1", "tile": k, "file": "montage.tif"} for k in (3, 1, 2)]
    plate = read_plate(str(write_rows(tmp_path / "plate.csv", rows)), Selection())
    (site,) = plate.sites
    assert (site.key.tile, site.tiles, site.montage) == (1, (1, 2, 3), True)
    assert read_plate(str(tmp_path / "plate.csv"), Selection(tile=2)) == plate


def test_fingerprints_change_with_the_files_only_where_asked(tmp_path):
    table = write_plate(tmp_path)
    before = read_plate(str(table), Selection())
    name = before.sites[0].images[0].file
    tifffile.imwrite(name, tifffile.imread(name) + 1)
    after = read_plate(str(table), Selection())
    assert before.fingerprint(with_versions=False) == after.fingerprint(with_versions=False)
    assert before.fingerprint() != after.fingerprint()


def change(tmp_path, row=0, **cells):
    table = write_plate(tmp_path)
    head, *lines = table.read_text().splitlines()
    rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    rows[row].update(cells)
    return str(write_rows(table, rows))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"well": "Q99"}, "a well's name is out of range"),
        ({"file": "nowhere.tif"}, "an image file does not exist"),
        ({"file": ""}, "a row names no file"),
        ({"timepoint": "noon"}, "timepoint is not a finite number"),
        ({"tile": "2"}, "two images for one channel"),
    ],
)
def test_rows_that_make_no_sense(tmp_path, cells, message):
    with pytest.raises(InputError, match=message):
        read_plate(change(tmp_path, **cells), Selection())


@pytest.mark.parametrize(
    "image",
    [np.zeros((96, 121), np.uint16), np.zeros((96, 120), np.uint8), np.zeros((3, 96, 120), "u2")],
    ids=["shape", "dtype", "stack"],
)
def test_images_that_differ(tmp_path, image):
    table = write_plate(tmp_path)
    options = {"imagej": True, "metadata": {"axes": "ZYX"}} if image.ndim == 3 else {}
    tifffile.imwrite(tmp_path / "B2_T0_2_actin.tif", image, **options)
    with pytest.raises(InputError, match=r"differs from the others|several planes"):
        read_plate(str(table), Selection())


def test_columns_that_are_not_known(tmp_path):
    table = write_rows(tmp_path / "plate.csv", [{"wel": "A1", "file": "a.tif"}])
    with pytest.raises(InputError, match="did you mean well"):
        read_plate(str(table), Selection())
    with pytest.raises(InputError, match="no column file"):
        read_plate(str(write_rows(tmp_path / "p.csv", [{"well": "A1"}])), Selection())
    (tmp_path / "twice.csv").write_text("well,file,file\nA1,a.tif,b.tif\n")
    with pytest.raises(InputError, match="two columns file"):
        read_plate(str(tmp_path / "twice.csv"), Selection())
    with pytest.raises(InputError, match="no image is left"):
        read_plate(str(write_plate(tmp_path / "p")), Selection(tile=9))
    with pytest.raises(InputError, match="a plate does not exist"):
        read_plate(str(tmp_path / "none.csv"), Selection())
    with pytest.raises(InputError, match="nothing says what the images"):
        read_plate(str(tmp_path), Selection())


def test_other_readers_are_asked_for_what_ours_cannot_read(tmp_path, caplog):
    import imageio.v3

    from warpbeam.transforms.storage.plate.images import read_image
    from warpbeam.transforms.storage.plate.model import ChannelImage

    image = np.arange(120, dtype=np.uint8).reshape(10, 12)
    imageio.v3.imwrite(tmp_path / "a.bmp", image)
    found = read_image(ChannelImage("0", str(tmp_path / "a.bmp"), 0, 0, 0, None))
    np.testing.assert_array_equal(found, image)
    assert "was read by OpenCV" in caplog.text
    (tmp_path / "b.bmp").write_bytes(b"nothing that any of them knows")
    with pytest.raises(InputError, match="an image cannot be read"):
        read_image(ChannelImage("0", str(tmp_path / "b.bmp"), 0, 0, 0, None))


def test_what_has_no_data_is_0(tmp_path):
    from warpbeam.transforms.storage.plate.images import read_image
    from warpbeam.transforms.storage.plate.model import ChannelImage

    grey = np.arange(48, dtype=np.float32).reshape(6, 8) + 1
    for place, value in (((0, 0), np.nan), ((1, 2), np.inf), ((3, 4), -np.inf)):
        grey[place] = value
    tifffile.imwrite(tmp_path / "a.tif", grey)
    found = read_image(ChannelImage("0", str(tmp_path / "a.tif"), 0, 0, 0, None))
    np.testing.assert_array_equal(found, np.where(np.isfinite(grey), grey, 0))
