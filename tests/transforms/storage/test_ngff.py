import ngff_zarr
import numpy as np
import ome_zarr_models
import pytest
import zarr

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import ngff
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.store import join, read_json, write_json
from warpbeam.transforms.storage.volume import VolumeSpec, create

FACTORS = ((1, 2, 2), (2, 2, 2), (1, 3, 2))


def blob_volume(tmp_path, format, dtype="float32", **changed):
    """A Gaussian blob of known centre in a volume whose world is not the voxel grid."""
    shape = (1, 2, 24, 96, 96)
    grid = np.meshgrid(*map(np.arange, shape[2:]), indexing="ij")
    centre = (11.3, 47.1, 50.6)
    squares = sum(((g - c) / s) ** 2 for g, c, s in zip(grid, centre, (3, 9, 9), strict=True))
    array = np.broadcast_to(20000 * np.exp(-squares / 2), shape).astype(dtype)
    spec = VolumeSpec(
        str(tmp_path / "blob.ome.zarr"),
        shape,
        dtype,
        (1, 1, 8, 16, 16),
        (1, 2, 24, 96, 96),
        format=format,
        voxel=(0.5, 0.2, 0.25),
        unit="micrometer",
        origin=(-3.0, 100.0, 7.5),
        factors=FACTORS,
        channels=("DAPI", "GFP"),
        **changed,
    )
    volume = create(spec)
    volume.write_with_levels(Box.of_shape(shape), array)
    for k in spec.group_starts[1:]:
        for index in volume.level(k).shard_grid.indices():
            volume.build_shard(k, index)
    return volume, centre


def attributes_of(volume):
    return ngff.read_group(volume.spec.uri)[1]


@pytest.mark.parametrize("format", ["zarr3", "zarr2"])
def test_every_level_shows_the_blob_at_the_same_place(tmp_path, format):
    volume, centre = blob_volume(tmp_path, format)
    spec, attributes = volume.spec, attributes_of(volume)
    truth = [(c + o) * v for c, o, v in zip(centre, spec.origin, spec.voxel, strict=True)]
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    for k, dataset in enumerate(multiscale["datasets"]):
        scale, shift = dataset["coordinateTransformations"]
        image = volume.level(k).read(Box.of_shape(volume.level(k).shape))[0, 0].astype(float)
        grid = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
        found = [
            (image * g).sum() / image.sum() * s + t
            for g, s, t in zip(grid, scale["scale"][2:], shift["translation"][2:], strict=True)
        ]
        # Without the half voxel the coarsest level would be 1.4 micrometres off in x.
        np.testing.assert_allclose(found, truth, atol=0.02)


def test_translation_in_numbers():
    placed = ngff.half_voxel_dataset("2", (0.5, 0.2, 0.25), (-3.0, 100.0, 7.5), (2, 4, 8))
    assert placed.scale == (1, 1, 1.0, 0.8, 2.0)
    # -1.5 + 0.5 * 0.5; 20 + 0.2 * 1.5; 1.875 + 0.25 * 3.5
    assert placed.translation == pytest.approx((0, 0, -1.25, 20.3, 2.75))


@pytest.mark.parametrize(("format", "version"), [("zarr3", "0.5"), ("zarr2", "0.4")])
def test_validators_accept_it(tmp_path, format, version):
    volume, _ = blob_volume(tmp_path, format, dtype="uint16")
    group = zarr.open_group(volume.spec.uri, mode="r")
    image = ome_zarr_models.open_ome_zarr(group)
    assert type(image).__module__.startswith(f"ome_zarr_models.v{version.replace('.', '')}")
    ngff_zarr.validate(dict(group.attrs), version=version, strict=True)
    read = ngff_zarr.from_ngff_zarr(volume.spec.uri, validate=True)
    assert [list(i.dims) for i in read.images] == [list("tczyx")] * 4
    assert read.images[1].scale["y"] == pytest.approx(0.4)
    assert read.images[1].translation["y"] == pytest.approx(20.1)
    assert read.images[0].axes_units["x"] == "micrometer"


def test_metadata_stands_where_each_version_keeps_it(tmp_path):
    new, _ = blob_volume(tmp_path / "5", "zarr3", dtype="uint16")
    old, _ = blob_volume(tmp_path / "4", "zarr2", dtype="uint16")
    ome = attributes_of(new)["ome"]
    assert ome["version"] == "0.5"
    assert "version" not in ome["multiscales"][0]
    assert "ome" not in attributes_of(old)
    assert attributes_of(old)["multiscales"][0]["version"] == "0.4"
    assert read_json(join(new.spec.uri, "0", "zarr.json"))["dimension_names"] == list("tczyx")
    assert read_json(join(old.spec.uri, "0", ".zarray"))["dimension_separator"] == "/"


def test_no_unit_means_no_unit_and_sizes_all_the_same(tmp_path):
    spec = VolumeSpec(
        str(tmp_path), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 8, 8), voxel=(3, 2, 2)
    )
    multiscale = attributes_of(create(spec))["ome"]["multiscales"][0]
    assert all("unit" not in axis for axis in multiscale["axes"])
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [1, 1, 3, 2, 2]


def test_units_are_those_of_the_specification():
    # https://ngff.openmicroscopy.org/0.5/#axes-md
    space = """angstrom attometer centimeter decimeter exameter femtometer foot gigameter
    hectometer inch kilometer megameter meter micrometer mile millimeter nanometer parsec
    petameter picometer terameter yard yoctometer yottameter zeptometer zettameter"""
    time = """attosecond centisecond day decisecond exasecond femtosecond gigasecond hectosecond
    hour kilosecond megasecond microsecond millisecond minute nanosecond petasecond picosecond
    second terasecond yoctosecond yottasecond zeptosecond zettasecond"""
    assert set(ngff.METRES) == set(space.split())
    assert set(ngff.TIME_UNITS) == set(time.split())
    assert ngff.METRES["micrometer"] == pytest.approx(1e-6)


def test_channels_have_name_colour_and_window(tmp_path):
    volume, _ = blob_volume(tmp_path, "zarr3", dtype="uint16")
    channels = attributes_of(volume)["ome"]["omero"]["channels"]
    assert [c["label"] for c in channels] == ["DAPI", "GFP"]
    assert len({c["color"] for c in channels}) == 2
    assert channels[0]["window"] == {"min": 0, "max": 65535, "start": 0, "end": 65535}
    assert ngff.Window.of_dtype("float32").json() == {"min": 0, "max": 1, "start": 0, "end": 1}


@pytest.mark.parametrize("format", ["zarr3", "zarr2"])
def test_window_is_set_and_nothing_else_changes(tmp_path, format):
    volume, _ = blob_volume(tmp_path, format, dtype="uint16")
    before = attributes_of(volume)
    ngff.set_window(volume.spec.uri, [(10, 200), (5.5, 99)])
    after = attributes_of(volume)
    channels = after.get("ome", after)["omero"]["channels"]
    assert channels[0]["window"] == {"min": 0, "max": 65535, "start": 10, "end": 200}
    for channel in channels:
        channel["window"] |= {"start": 0, "end": 65535}
    assert after == before
    with pytest.raises(InputError, match="1 channels"):
        ngff.set_window(volume.spec.uri, [(0, 1)])


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_labels_are_valid(tmp_path, version):
    axes = tuple(map(ngff.Axis, "tczyx"))
    dataset = ngff.half_voxel_dataset("0", (1, 1, 1), (0, 0, 0), (1, 1, 1))
    image = ngff.Image(version, "cells", axes, (dataset,), method="mode")
    root, label = str(tmp_path / "labels"), str(tmp_path / "labels" / "cells")
    for place, attributes in (
        (root, ngff.labels_group(version, ["cells"])),
        (label, ngff.label_image(image)),
    ):
        for key, value in ngff.group_files(version, attributes).items():
            write_json(join(place, key), value)
    zarr.create_array(
        label,
        name="0",
        shape=(1, 1, 2, 3, 4),
        dtype="uint32",
        dimension_names=list("tczyx") if version == "0.5" else None,
        zarr_format=3 if version == "0.5" else 2,
        chunk_key_encoding={"name": "default" if version == "0.5" else "v2", "separator": "/"},
    )
    ngff_zarr.validate(ngff.label_image(image), version=version, model="label")
    loaded = ome_zarr_models.open_ome_zarr(zarr.open_group(label, mode="r"))
    assert "Label" in type(loaded).__name__
    listed = ome_zarr_models.open_ome_zarr(zarr.open_group(root, mode="r"))
    assert "Labels" in type(listed).__name__
