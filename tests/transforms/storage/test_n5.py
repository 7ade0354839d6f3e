import json

import numpy as np
import pytest
import tensorstore as ts

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.describe import describe
from warpbeam.transforms.storage.images import ImageRef, probe
from warpbeam.transforms.storage.ngff import METRES
from warpbeam.transforms.storage.volume import VolumeSpec, create


def written(tmp_path, shape, seed=0):
    spec = VolumeSpec(
        str(tmp_path),
        shape,
        "uint16",
        (1, 1, 2, 8, 16),
        (1, 1, 4, 16, 32),
        format="n5",
        voxel=(2.0, 0.5, 0.25),
        unit="micrometer",
        origin=(1.0, 0.0, 10.0),
        factors=((1, 2, 2), (2, 2, 2)),
    )
    array = np.random.default_rng(seed).integers(1, 60000, shape).astype(np.uint16)
    volume = create(spec)
    for index in volume.level(0).shard_grid.indices():
        box = volume.level(0).shard_grid.box(index)
        volume.write_with_levels(box, array[box.slices])
    return volume, array


def read_n5(folder):
    """An independent read: the driver alone, dimensions as N5 lists them (x first)."""
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    return ts.open(spec, open=True).result().read().result()


def test_planes_are_stored_as_three_dimensions_x_first(tmp_path):
    _, array = written(tmp_path, (1, 1, 5, 30, 50))
    np.testing.assert_array_equal(read_n5(tmp_path / "s0"), array[0, 0].transpose(2, 1, 0))
    metadata = json.loads((tmp_path / "s0" / "attributes.json").read_text())
    assert metadata["dimensions"] == [50, 30, 5]
    assert metadata["blockSize"] == [16, 8, 2]
    assert metadata["axes"] == ["x", "y", "z"]


def test_channels_and_time_are_stored_where_there_are_several(tmp_path):
    _, array = written(tmp_path, (2, 3, 5, 30, 50))
    np.testing.assert_array_equal(read_n5(tmp_path / "s0"), array.transpose(4, 3, 2, 1, 0))
    metadata = json.loads((tmp_path / "s0" / "attributes.json").read_text())
    assert metadata["axes"] == ["x", "y", "z", "c", "t"]


def test_a_block_file_is_what_the_n5_format_says(tmp_path):
    """Header: mode, rank, extents (big endian); body: gzip of big-endian values, x fastest."""
    import gzip

    _, array = written(tmp_path, (1, 1, 5, 30, 50))
    raw = (tmp_path / "s0" / "1" / "2" / "0").read_bytes()
    assert raw[:4] == b"\x00\x00\x00\x03"
    extents = np.frombuffer(raw[4:16], ">u4")[::-1]
    values = np.frombuffer(gzip.decompress(raw[16:]), ">u2").reshape(extents)
    expected = array[0, 0, 0:2, 16:24, 16:32]
    assert values.shape == expected.shape
    np.testing.assert_array_equal(values, expected)


def test_pyramid_attributes(tmp_path):
    written(tmp_path, (1, 1, 5, 30, 50))
    top = json.loads((tmp_path / "attributes.json").read_text())
    assert top["downsamplingFactors"] == [[1, 1, 1], [2, 2, 1], [4, 4, 2]]
    assert top["resolution"] == [0.25, 0.5, 2.0]
    assert top["units"] == ["um", "um", "um"]
    last = json.loads((tmp_path / "s2" / "attributes.json").read_text())
    assert last["downsamplingFactors"] == [4, 4, 2]
    assert last["resolution"] == [1.0, 2.0, 4.0]
    # Origin (1, 0, 10) voxels, and half a voxel less than half the factor: 2 * (1 + 0.5) ...
    assert last["transform"]["translate"] == pytest.approx([3.0, 0.75, 2.875])


def test_volume_reads_it_back_in_tczyx(tmp_path):
    volume, array = written(tmp_path, (2, 3, 5, 30, 50))
    np.testing.assert_array_equal(volume.level(0).read(Box.of_shape(array.shape)), array)


COSEM = {"axes": ["z", "y", "x"], "scale": [1500.0, 750, 700], "units": ["nm"] * 3,
         "translate": [0.0, 0, 0]}  # fmt: skip


@pytest.mark.parametrize(
    ("array", "group"),
    [
        ({"pixelResolution": {"unit": "um", "dimensions": [0.7, 0.75, 1.5]}}, None),
        ({"pixelResolution": [0.7, 0.75, 1.5]}, None),
        ({"resolution": [700, 750, 1500], "units": ["nm"] * 3}, None),
        ({"transform": COSEM}, None),
        ({"transform": COSEM | {"ordering": "F", "scale": [700.0, 750, 1500]}}, {}),
        ({}, {"pixelResolution": {"unit": "µm", "dimensions": [0.7, 0.75, 1.5]}}),
        ({}, {"resolution": [0.7, 0.75, 1.5], "units": ["um"] * 3}),
        ({}, {"multiscales": [{"datasets": [{"path": "s0", "transform": COSEM}]}]}),
    ],
)
def test_voxel_sizes_of_other_programs_are_read(tmp_path, array, group):
    """Fiji, the N5 viewer and COSEM write them in ways of their own; x first in most."""
    folder = tmp_path / "a.n5"
    place = folder if group is None else folder / "s0"
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{place}/"}}
    ts.open(spec, create=True, dtype=ts.uint8, shape=[10, 9, 8]).result().write(1).result()
    attributes = json.loads((place / "attributes.json").read_text())
    (place / "attributes.json").write_text(json.dumps(attributes | array))
    if group is not None:
        (folder / "attributes.json").write_text(json.dumps({"n5": "2.0.0", **group}))
    info = probe(ImageRef(str(folder)))
    assert info.shape == (8, 9, 10)
    assert info.voxel_um == pytest.approx((1.5, 0.75, 0.7))
    level = describe(str(folder)).levels[0]
    assert np.multiply(level.scale, 1e6 * METRES[level.unit]) == pytest.approx((1.5, 0.75, 0.7))


@pytest.mark.parametrize("array", [{}, {"resolution": [4, 4, 40]}, {"pixelResolution": []}])
def test_sizes_without_a_unit_are_none(tmp_path, array):
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{tmp_path}/a.n5/"}}
    ts.open(spec, create=True, dtype=ts.uint8, shape=[10, 9, 8]).result()
    path = tmp_path / "a.n5" / "attributes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | array))
    assert probe(ImageRef(str(tmp_path / "a.n5"))).voxel_um is None
