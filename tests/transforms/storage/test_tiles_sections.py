import numpy as np
import pytest
import tifffile
import zarr

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import images
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.sections import read_sections


def write(folder, names, shape=(20, 30), dtype="uint8"):
    for k, name in enumerate(names):
        tifffile.imwrite(folder / name, np.full(shape, k, dtype))
    return str(folder)


def numbers(tiles):
    return [t.section for t in tiles]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["s_1.tif", "s_10.tif", "s_2.tif"], [1, 2, 10]),
        (["2016_s00_07.tif", "2016_s00_03.tif"], [3, 7]),
        (["front.tif", "middle.tif"], [0, 1]),
        (["r1_s1.tif", "r2_s2.tif"], [0, 1]),
    ],
)
def test_the_number_in_which_names_differ_is_the_section(tmp_path, names, expected):
    assert numbers(read_sections(write(tmp_path, names))) == expected


def test_a_list_of_sections_needs_no_positions(tmp_path):
    write(tmp_path, ["a.tif", "b.tif", "c.tif", "d.tif", "m.tif"])
    lines = ["file,section,channel,mask", *(f"{n}.tif,{s},{c},m.tif" for n, s, c in
             (("a", 7, "dapi"), ("b", 7, "gfp"), ("c", 9, "dapi"), ("d", 9, "gfp")))]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    found = read_sections(str(tmp_path / "list.csv"))
    assert numbers(found) == [7, 9]
    assert found.channels == ("dapi", "gfp")
    assert {tile.position for tile in found} == {(0.0, 0.0)}
    (tmp_path / "list.csv").write_text("file\na.tif\nb.tif\n")
    with pytest.raises(InputError, match="column `section`"):
        read_sections(str(tmp_path / "list.csv"))


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    tiles = read_sections(write(tmp_path, ["a10.tif", "a9.tif"]))
    assert [t.images[0].file.rsplit("/", 1)[-1] for t in tiles] == ["a9.tif", "a10.tif"]


def test_the_pages_of_a_tiff_are_sections(tmp_path):
    stack = np.arange(4 * 20 * 30, dtype=np.uint16).reshape(4, 20, 30)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    tiles = read_sections(str(tmp_path / "stack.tif"))
    assert numbers(tiles) == [0, 1, 2, 3]
    box = Box((5, 6), (9, 20))
    np.testing.assert_array_equal(images.read(tiles.tiles[2].images[0], box), stack[2, 5:9, 6:20])


def test_the_planes_of_a_volume_are_sections(tmp_path):
    volume = np.random.default_rng(0).integers(0, 255, (3, 20, 30), np.uint8)
    zarr.save_array(str(tmp_path / "v.zarr"), volume)
    tiles = read_sections(
        str(tmp_path / "v.zarr"), options=TileOptions(voxel_um=(0.04, 0.01, 0.01))
    )
    assert tiles.voxel_um == (0.04, 0.01, 0.01)
    np.testing.assert_array_equal(images.read(tiles.tiles[1].images[0]), volume[1])
    first, second = (t.images[0] for t in tiles.tiles[:2])
    assert first != second


def test_planes_have_fingerprints_of_their_own(tmp_path):
    volume = np.zeros((3, 20, 30), np.uint8)
    zarr.save_array(str(tmp_path / "v.zarr"), volume)
    whole = read_sections(str(tmp_path / "v.zarr"))
    part = type(whole)(whole.tiles[:2], whole.channels, whole.voxel_um)
    assert whole.fingerprint() != part.fingerprint()


def test_a_voxel_size_has_a_depth(tmp_path):
    folder = write(tmp_path, ["a1.tif", "a2.tif"])
    tiles = read_sections(folder, options=TileOptions(voxel_um=(0.05, 0.004, 0.004)))
    assert tiles.voxel_um == (0.05, 0.004, 0.004)


def test_a_plane_that_is_not_there(tmp_path):
    zarr.save_array(str(tmp_path / "v.zarr"), np.zeros((3, 20, 30), np.uint8))
    with pytest.raises(InputError, match="no such plane"):
        images.probe(images.ImageRef(str(tmp_path / "v.zarr"), plane=3))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: p / "nothing", "does not exist"),
        (lambda p: p, "holds no images"),
        (lambda p: write(p, ["a1.tif"]), "several sections"),
        (lambda p: write(p, ["a1.tif", "a2.tif"], (5, 20, 30)), "two-dimensional"),
        (lambda p: write(p, ["a1.tif"]) + "/a1.tif", "several sections"),
    ],
)
def test_bad_input(tmp_path, prepare, message):
    with pytest.raises(InputError, match=message):
        read_sections(str(prepare(tmp_path)))


def test_two_kinds_of_pixels_are_refused(tmp_path):
    write(tmp_path, ["a1.tif"])
    tifffile.imwrite(tmp_path / "a2.tif", np.zeros((20, 30), np.uint16))
    with pytest.raises(InputError, match="two dtypes"):
        read_sections(str(tmp_path))


def test_several_tiles_of_a_section_are_refused(tmp_path):
    write(tmp_path, ["a1_b1.tif", "a1_b2.tif", "a2_b1.tif", "a2_b2.tif"])
    options = TileOptions(pattern="a{section}_b{col}.tif", overlap=0.1)
    with pytest.raises(InputError, match="several tiles"):
        read_sections(str(tmp_path), options=options)
