"""Stage positions that microscopes write into TIFF files."""

import numpy as np
import pytest
import tifffile

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import read
from warpbeam.transforms.storage.images.reading import close_all
from warpbeam.transforms.storage.tiles import TileOptions, read_tiles

METAMORPH = """<MetaData>
<prop id="Description" type="string" value="Plate"/>
<PlaneInfo>
<prop id="spatial-calibration-state" type="bool" value="on"/>
<prop id="spatial-calibration-x" type="float" value="1.25"/>
<prop id="spatial-calibration-y" type="float" value="1.25"/>
<prop id="spatial-calibration-units" type="string" value="um"/>
<prop id="stage-position-x" type="float" value="{x}"/>
<prop id="stage-position-y" type="float" value="{y}"/>
<prop id="stage-label" type="string" value="{well} : Site {site}"/>
<prop id="wavelength" type="float" value="{wavelength}"/>
</PlaneInfo>
</MetaData>"""


def save_ome(path, y, x, *, unit="µm", array=None, **more):
    array = np.zeros((8, 10), np.uint16) if array is None else array
    planes = array.shape[0] if array.ndim == 3 else 1
    place = {"PositionX": [x] * planes, "PositionY": [y] * planes}
    place |= {f"Position{a}Unit": [unit] * planes for a in "XY"}
    metadata = {"Plane": place, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, **more}
    axes = "ZYX" if array.ndim == 3 else "YX"
    tifffile.imwrite(path, array, ome=True, metadata={"axes": axes, **metadata})


def save_metamorph(path, **facts):
    text = METAMORPH.format(**facts)
    tifffile.imwrite(path, np.zeros((8, 10), np.uint16), description=text, metadata=None)


def places(source, **options):
    return {t.tile: t.position for t in read_tiles(str(source), options=TileOptions(**options))}


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("mm", 1e-3), ("nm", 1e3)])
def test_ome_positions_and_units(tmp_path, unit, factor):
    save_ome(tmp_path / "a.ome.tif", -2.0 * factor, 10.0 * factor, unit=unit)
    save_ome(tmp_path / "b.ome.tif", -2.0 * factor, 14.5 * factor, unit=unit)
    expected = {"a": (-8.0, 20.0), "b": (-8.0, 29.0)}
    found = places(tmp_path)
    assert found.keys() == expected.keys()
    for name, place in expected.items():
        assert found[name] == pytest.approx(place)
    flipped = places(tmp_path, flip_y=True, voxel_um=1.0)
    assert flipped["b"] == pytest.approx((2.0, 14.5))


def test_ome_volume_keeps_z(tmp_path):
    array = np.zeros((3, 8, 10), np.uint16)
    z = {"PositionZ": [6.0, 8.0, 10.0], "PositionZUnit": ["µm"] * 3}
    place = {"PositionX": [1.0] * 3, "PositionY": [2.0] * 3, **z}
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    metadata = {"axes": "ZYX", "Plane": place, **sizes}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, ome=True, metadata=metadata)
    assert places(tmp_path) == {"a": pytest.approx((3.0, 4.0, 2.0))}


def test_series_of_one_file_are_tiles(tmp_path):
    with tifffile.TiffWriter(tmp_path / "all.ome.tif", ome=True) as writer:
        for k in range(3):
            place = {"PositionX": [4.5 * k], "PositionY": [0.0]}
            sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            metadata = {"axes": "YX", "Plane": place, **sizes}
            writer.write(np.full((8, 10), k, np.uint16), metadata=metadata)
    tiles = read_tiles(str(tmp_path / "all.ome.tif"))
    assert [(t.tile, t.position) for t in tiles] == [
        (f"all_s{k}", pytest.approx((0.0, 9.0 * k))) for k in range(3)
    ]
    assert [t.images[0].series for t in tiles] == [0, 1, 2]


OME_SET = """<?xml version="1.0"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="10" SizeY="8" SizeZ="1"
 SizeC="2" SizeT="1"><Channel ID="c0" Name="g" SamplesPerPixel="1"/>
<Channel ID="c1" Name="r" SamplesPerPixel="1"/>
<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="f0.ome.tif">urn:uuid:0</UUID></TiffData>
<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="f1.ome.tif">urn:uuid:1</UUID></TiffData>
<Plane TheC="0" TheZ="0" TheT="0" PositionX="5" PositionY="6"/></Pixels></Image></OME>"""


def test_an_ome_set_over_several_files_is_one_tile(tmp_path):
    for c in range(2):
        array = np.full((8, 10), c + 1, np.uint16)
        xml = OME_SET.format(own=f"urn:uuid:{c}")
        tifffile.imwrite(tmp_path / f"f{c}.ome.tif", array, description=xml, metadata=None)
    (tile,) = read_tiles(str(tmp_path), options=TileOptions(voxel_um=0.5))
    assert tile.position == (12.0, 10.0)
    assert [read(ref).max() for ref in tile.images] == [1, 2]
    (tmp_path / "f1.ome.tif").rename(tmp_path / "elsewhere")
    close_all()
    with pytest.raises(InputError, match="missing file"):
        read_tiles(str(tmp_path), options=TileOptions(voxel_um=0.5))


@pytest.fixture
def plate(tmp_path):
    for well, y in (("B02", 1000), ("B10", 9000), ("B3", 5000)):
        for site in (1, 2):
            for k, wavelength in enumerate((452, 520)):
                save_metamorph(
                    tmp_path / f"p_{well}_s{site}_w{k}.tif",
                    y=y, x=100 + 10 * site, well=well, site=site, wavelength=wavelength,
                )  # fmt: skip
    return tmp_path


def test_metamorph_plate(plate):
    tiles = read_tiles(str(plate))
    assert tiles.channels == ("452", "520")
    assert tiles.voxel_um == (1.25, 1.25)
    assert [t.key for t in tiles] == [
        (0, k, f"{w}_s{s}") for k, w in enumerate(("B02", "B3", "B10")) for s in (1, 2)
    ]
    a, b = tiles.tiles[:2]
    assert np.subtract(b.position, a.position).tolist() == pytest.approx([0, 8])
    assert a.position == pytest.approx((800, 88))


def test_a_pattern_without_places_takes_those_of_the_stage(plate):
    options = TileOptions(pattern="p_{section}_s{tile}_{channel}.tif")
    tiles = read_tiles(str(plate), options=options)
    assert tiles.channels == ("w0", "w1")
    assert tiles.tiles[0].position == pytest.approx((800, 88))
    assert tiles.tiles[0].key == (0, 0, "1")
    one_section = read_tiles(str(plate), options=TileOptions(pattern="p_*_s*_w{channel}.tif"))
    assert one_section.channels == ("0", "1")
    assert len(one_section) == 6


def test_files_without_positions(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 10), np.uint16))
    with pytest.raises(InputError, match="nothing says where"):
        read_tiles(str(tmp_path))
    with pytest.raises(InputError, match="no stage position"):
        read_tiles(str(tmp_path), options=TileOptions(format="stage"))
