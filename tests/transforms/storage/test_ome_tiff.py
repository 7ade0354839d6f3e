import numpy as np
import pytest
import tifffile

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.images import ImageRef, probe
from warpbeam.transforms.storage.ome_tiff import write_ome_tiff
from warpbeam.transforms.storage.volume import create
from warpbeam.transforms.storage.volume_spec import VolumeSpec

SHAPE = (2, 2, 11, 70, 300)


@pytest.fixture
def stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 60000, SHAPE, dtype=np.uint16)
    spec = VolumeSpec(
        str(tmp_path / "volume.ome.zarr"), SHAPE, "uint16", (1, 1, 4, 64, 64), (1, 1, 8, 128, 128),
        voxel=(2.0, 0.5, 0.25), unit="micrometer", channels=("actin", "dapi"),
    )  # fmt: skip
    level = create(spec).level(0)
    for index in level.shard_grid.indices():
        box = level.shard_grid.box(index)
        level.write_shards(box, values[box.slices])
    return spec.uri, values


def test_the_file_holds_the_volume_and_says_what_it_is(stored, tmp_path):
    uri, values = stored
    target = tmp_path / "out" / "volume.ome.tif"
    assert write_ome_tiff(uri, str(target)) == values.nbytes
    with tifffile.TiffFile(target) as file:
        assert file.is_ome
        assert file.is_bigtiff
        assert file.series[0].axes == "TCZYX"
        np.testing.assert_array_equal(file.series[0].asarray(), values)
    info = probe(ImageRef(str(target)))
    assert info.shape == SHAPE[2:]
    assert info.channel_names == ("actin", "dapi")
    np.testing.assert_allclose(info.voxel_um, (2.0, 0.5, 0.25))


def test_the_same_bytes_every_time_and_nothing_half_written(stored, tmp_path):
    uri, _ = stored
    for name in ("a", "b"):
        write_ome_tiff(uri, str(tmp_path / name / "v.tif"))
    assert (tmp_path / "a" / "v.tif").read_bytes() == (tmp_path / "b" / "v.tif").read_bytes()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["v.tif"]


def test_a_part_of_the_planes_is_in_memory_at_a_time(stored, tmp_path, monkeypatch):
    from warpbeam.transforms.storage.volume import Level

    uri, values = stored
    largest, read = [], Level.read_once
    monkeypatch.setattr(Level, "read_once", lambda s, b: (largest.append(b.size), read(s, b))[1])
    write_ome_tiff(uri, str(tmp_path / "v.tif"))
    assert max(largest) == 4 * 70 * 300
    assert sum(largest) == values.size
    assert Box.of_shape(SHAPE).size == values.size


def test_a_bucket_gets_it_too(stored):
    uri, values = stored
    write_ome_tiff(uri, "memory://tiffs/v.tif")
    import fsspec

    with fsspec.open("memory://tiffs/v.tif", "rb") as file:
        np.testing.assert_array_equal(tifffile.imread(file), values)
    assert store.local_path("memory://tiffs/v.tif") is None
