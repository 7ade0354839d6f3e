"""Images of every kind, read whole and in boxes, against the arrays that were written."""

import itertools
import json
import pickle

import cv2
import fsspec
import numpy as np
import pytest
import tensorstore as ts
import tifffile

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import CorruptImageError, ImageRef, probe, read
from warpbeam.transforms.storage.images.reading import OPEN_FILES, _images, close_all

PLANE = np.arange(70 * 90, dtype=np.uint16).reshape(70, 90)
VOLUME = np.arange(5 * 40 * 30, dtype=np.uint16).reshape(5, 40, 30)


def middle(shape):
    return Box(tuple(n // 3 for n in shape), tuple(2 * n // 3 for n in shape))


def check(array, file, **at):
    ref = ImageRef(str(file), **at)
    assert probe(ref).shape == array.shape
    whole, box = read(ref), middle(array.shape)
    np.testing.assert_array_equal(whole, array)
    np.testing.assert_array_equal(read(ref, box), array[box.slices])
    assert whole.dtype == np.dtype(probe(ref).dtype)
    assert whole.dtype.isnative
    return probe(ref)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize(
    "how", [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"bigtiff": True}, {"byteorder": ">"}]
)
def test_tiff_planes(tmp_path, compression, how):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, compression=compression, **how)
    check(PLANE, tmp_path / "a.tif")


@pytest.mark.parametrize("predictor", [False, True])
def test_tiff_predictor(tmp_path, predictor):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, compression="zlib", predictor=predictor)
    check(PLANE, tmp_path / "a.tif")


def test_narrow_box_of_a_wide_plane_is_read_in_bands(tmp_path, monkeypatch):
    monkeypatch.setattr("warpbeam.transforms.storage.images.source.LocalFile.band_bytes", 1000)
    tifffile.imwrite(tmp_path / "a.tif", PLANE)
    box = Box((3, 80), (68, 83))
    np.testing.assert_array_equal(read(ImageRef(str(tmp_path / "a.tif")), box), PLANE[box.slices])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "lzw", "tile": (16, 16)},
    ],
)
def test_tiff_volumes(tmp_path, how):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, photometric="minisblack", **how)
    info = check(VOLUME, tmp_path / "a.tif")
    assert info.random_access


@pytest.mark.parametrize(("axes", "how"), [("TCZYX", {"ome": True}), ("TZCYX", {"imagej": True})])
def test_channels_and_times(tmp_path, axes, how):
    array = np.arange(2 * 3 * 4 * 20 * 10, dtype=np.uint16).reshape(2, 3, 4, 20, 10)
    names = {"Channel": {"Name": ["a", "b", "c"]}} if "ome" in how else {}
    stored = np.moveaxis(array, 1, axes.index("C"))
    tifffile.imwrite(
        tmp_path / "a.tif", stored.copy(), photometric="minisblack",
        metadata={"axes": axes, **names}, **how,
    )  # fmt: skip
    for t, c in itertools.product(range(2), range(3)):
        info = check(array[t, c], tmp_path / "a.tif", channel=c, time=t)
    assert (info.channels, info.times) == (3, 2)
    assert info.channel_names == (("a", "b", "c") if names else ())
    with pytest.raises(InputError, match="no such channel"):
        probe(ImageRef(str(tmp_path / "a.tif"), channel=3))
    with pytest.raises(InputError, match="no such series"):
        probe(ImageRef(str(tmp_path / "a.tif"), series=1))


def test_series_are_images_of_their_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(PLANE)
        writer.write(PLANE[:30, :20] + 1)
    check(PLANE, tmp_path / "a.tif", series=0)
    check(PLANE[:30, :20] + 1, tmp_path / "a.tif", series=1)


def test_voxel_sizes(tmp_path):
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    sizes |= {"PhysicalSizeZ": 2, "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "o.tif", VOLUME, ome=True, metadata=sizes)
    assert probe(ImageRef(str(tmp_path / "o.tif"))).voxel_um == pytest.approx((2, 0.25, 0.5))
    tifffile.imwrite(
        tmp_path / "j.tif", VOLUME, imagej=True, resolution=(2, 4),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"},
    )  # fmt: skip
    assert probe(ImageRef(str(tmp_path / "j.tif"))).voxel_um == pytest.approx((3, 0.25, 0.5))
    tifffile.imwrite(tmp_path / "p.tif", PLANE, resolution=(300, 300), resolutionunit="inch")
    assert probe(ImageRef(str(tmp_path / "p.tif"))).voxel_um is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "planar.tif"])
def test_equal_colours_are_grey_and_others_are_refused(tmp_path, name):
    grey = np.full((32, 48), 90, np.uint8)
    grey[8:, 16:] = 200
    for colours, equal in (
        (np.stack([grey] * 3, -1), True),
        (np.stack([grey, grey, 0 * grey], -1), 0),
    ):
        file = tmp_path / f"{bool(equal)}_{name}"
        if name == "planar.tif":
            planes = np.moveaxis(colours, -1, 0).copy()
            tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate")
        elif name.endswith("tif"):
            tifffile.imwrite(file, colours, photometric="rgb", compression="zlib")
        else:
            cv2.imwrite(str(file), colours)
        assert probe(ImageRef(str(file))).colour
        if equal:
            check(grey, file)
        else:
            with pytest.raises(InputError, match="in colour"):
                read(ImageRef(str(file)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png(tmp_path, dtype):
    cv2.imwrite(str(tmp_path / "a.png"), PLANE.astype(dtype))
    info = check(PLANE.astype(dtype), tmp_path / "a.png")
    assert not info.random_access
    assert not info.colour


def test_alpha_is_left_out(tmp_path):
    grey = (PLANE % 251).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), np.stack([grey, grey, grey, 255 - grey], -1))
    check(grey, tmp_path / "a.png")


def test_dtypes(tmp_path):
    file = tmp_path / "a.tif"
    for given, expected in (
        ("f8", "float32"),
        ("f2", "float32"),
        ("i2", "int16"),
        ("u4", "uint32"),
        ("i8", "uint64"),
    ):
        tifffile.imwrite(file, (PLANE % 500).astype(given))
        assert probe(ImageRef(str(file))).dtype == expected
        check((PLANE % 500).astype(expected), file)
    tifffile.imwrite(file, PLANE.astype("c8"))
    with pytest.raises(InputError, match="dtype that cannot be used"):
        probe(ImageRef(str(file)))


@pytest.mark.parametrize("driver", ["zarr", "zarr3", "n5"])
def test_chunked_arrays(tmp_path, driver):
    array = np.arange(2 * 4 * 20 * 30, dtype=np.uint16).reshape(2, 4, 20, 30)
    folder = tmp_path / ("a.n5" if driver == "n5" else "a.zarr")
    stored = array.T if driver == "n5" else array
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(folder)}}
    ts.open(spec, create=True, dtype=ts.uint16, shape=stored.shape).result().write(stored).result()
    for c in range(2):
        info = check(array[c], folder, channel=c)
    assert info.channels == 2
    uri = f"file://{folder}/|{'zarr2' if driver == 'zarr' else driver}:"
    np.testing.assert_array_equal(read(ImageRef(uri, channel=1)), array[1])


def test_ome_zarr_group(tmp_path):
    array = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(1, 1, 3, 20, 30)
    level = {"driver": "file", "path": str(tmp_path / "a.ome.zarr/0")}
    spec = {"driver": "zarr3", "kvstore": level}
    ts.open(spec, create=True, dtype=ts.uint16, shape=array.shape).result().write(array).result()
    axes = [{"name": n, "unit": "nanometer"} if n in "zyx" else {"name": n} for n in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 2000, 500, 250]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"multiscales": [image]}},
    }
    (tmp_path / "a.ome.zarr/zarr.json").write_text(json.dumps(group))
    info = check(array[0, 0], tmp_path / "a.ome.zarr")
    assert info.voxel_um == pytest.approx((2.0, 0.5, 0.25))


def test_planes_in_separate_files(tmp_path):
    for z in range(5):
        tifffile.imwrite(tmp_path / f"t1_z{z + 8}.tif", VOLUME[z])  # 8 to 12: numbers, not text
    tifffile.imwrite(tmp_path / "t1_z9_other.tif", VOLUME[0])
    check(VOLUME, tmp_path / "t1_z*.tif")
    tifffile.imwrite(tmp_path / "t1_z13.tif", VOLUME[0, :9])
    close_all()
    with pytest.raises(InputError, match="planes of a stack differ"):
        probe(ImageRef(str(tmp_path / "t1_z*.tif")))


def test_object_behind_a_uri():
    fs = fsspec.filesystem("memory")
    for name, how in (("raw", {}), ("packed", {"compression": "zlib", "tile": (16, 16)})):
        with fs.open(f"/images/{name}.tif", "wb") as stream:
            tifffile.imwrite(stream, VOLUME, photometric="minisblack", **how)
        check(VOLUME, f"memory://images/{name}.tif")
    fs.pipe("/images/a.png", cv2.imencode(".png", PLANE)[1].tobytes())
    check(PLANE, "memory://images/a.png")
    with pytest.raises(InputError, match="does not exist"):
        probe(ImageRef("memory://images/none.tif"))


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"imagej": True}])
def test_truncated_tiff_is_found_from_its_header(tmp_path, how):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, VOLUME, photometric="minisblack", **how)
    data = file.read_bytes()
    for fraction in np.linspace(0, 0.99, 34):
        file.write_bytes(data[: int(fraction * len(data))])
        with pytest.raises(InputError, match=r"truncated|cannot be read"):
            probe(ImageRef(str(file)))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_png_and_jpeg(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    for fraction in (0.1, 0.5, 0.99):
        file.write_bytes(data[: int(fraction * len(data))])
        with pytest.raises(InputError, match="truncated"):
            probe(ImageRef(str(file)))


@pytest.mark.parametrize("data", [b"", b"no image at all", b"II*\0", b"\xff\xd8\xff\xe0"])
def test_unreadable(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be read|truncated"):
        probe(ImageRef(str(tmp_path / "a.tif")))


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a_*.png", "none/a.tif"])
def test_missing(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        probe(ImageRef(str(tmp_path / name)))


def test_corrupt_inside_is_told_from_a_bad_header(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", noise, compression="zlib")
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    for name in ("a.tif", "a.png"):
        data = bytearray((tmp_path / name).read_bytes())
        data[2000:2050] = bytes(50)
        (tmp_path / name).write_bytes(data)
        ref = ImageRef(str(tmp_path / name))
        assert probe(ref).shape == (64, 64)
        with pytest.raises(CorruptImageError) as caught:
            read(ref)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(copy, CorruptImageError)
        assert copy.where == ref.file


def test_box_outside_is_refused_and_an_empty_box_is_empty(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE)
    ref = ImageRef(str(tmp_path / "a.tif"))
    with pytest.raises(ValueError, match="does not lie inside"):
        read(ref, Box((0, 0), (71, 90)))
    assert read(ref, Box((5, 5), (5, 9))).shape == (0, 4)


def test_open_files_are_bounded_and_a_rewritten_file_is_seen(tmp_path):
    close_all()
    for k in range(OPEN_FILES + 20):
        tifffile.imwrite(tmp_path / f"{k}.tif", PLANE[:8, :8] + k)
        check(PLANE[:8, :8] + k, tmp_path / f"{k}.tif")
    assert len(_images) <= OPEN_FILES
    tifffile.imwrite(tmp_path / "79.tif", PLANE)
    check(PLANE, tmp_path / "79.tif")


def test_labels_as_numpy_makes_them(tmp_path):
    labels = np.arange(64, dtype=np.int64).reshape(8, 8) << 40
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/l.zarr/"}}
    array = ts.open(spec, create=True, dtype=ts.int64, shape=[8, 8]).result()
    array.write(labels).result()
    ref = ImageRef(str(tmp_path / "l.zarr"))
    assert probe(ref).dtype == "uint64"
    np.testing.assert_array_equal(read(ref), labels.astype(np.uint64))
    array[3, 3].write(-1).result()
    with pytest.raises(InputError, match="labels are not negative"):
        read(ref)
