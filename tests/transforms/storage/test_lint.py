import copy

import numpy as np
import pytest
import zarr

from warpbeam.transforms.storage.describe import describe
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.lint import lint
from warpbeam.transforms.storage.store import join, read_json, write_json
from warpbeam.transforms.storage.volume import VolumeSpec, create

SHAPES = ((1, 2, 4, 51, 50), (1, 2, 4, 26, 25), (1, 2, 2, 9, 13))


def make(tmp_path, format="zarr3", **changed):
    settings = {
        "uri": str(tmp_path / "v.ome.zarr"),
        "shape": SHAPES[0],
        "dtype": "uint8",
        "chunk": (1, 2, 2, 8, 8),
        "shard": (1, 2, 4, 32, 32),
        "format": format,
        "voxel": (2.0, 0.5, 0.5),
        "unit": "micrometer",
        "origin": (0.0, 10.0, 20.0),
        "factors": ((1, 2, 2), (2, 3, 2)),
    }
    spec = VolumeSpec(**(settings | changed))
    create(spec)
    return spec.uri


@pytest.mark.parametrize("format", ["zarr3", "zarr2", "n5", "precomputed"])
def test_our_own_volumes_are_clean(tmp_path, format):
    assert lint(make(tmp_path, format)) == []


def test_every_level_is_described_alike_in_every_format(tmp_path):
    for format in ("zarr3", "zarr2", "n5", "precomputed"):
        found = describe(make(tmp_path / format, format))
        assert [level.shape[-3:] for level in found.levels] == [
            (4, 51, 50),
            (4, 26, 25),
            (2, 9, 13),
        ]
        nm = 1000 if format == "precomputed" else 1
        assert found.levels[2].scale[-3:] == pytest.approx((4 * nm, 3 * nm, 2 * nm))
        if format == "precomputed":
            continue
        # (origin + (factor - 1) / 2) * voxel for factors 2, 6, 4.
        assert found.levels[2].translation[-3:] == pytest.approx((1.0, 6.25, 10.75))


def edit(change):
    def spoil(uri):
        name = "zarr.json"
        node = read_json(join(uri, name))
        change(node["attributes"])
        write_json(join(uri, name), node)

    return spoil


def edit_array(change):
    def spoil(uri):
        node = read_json(join(uri, "1", "zarr.json"))
        change(node)
        write_json(join(uri, "1", "zarr.json"), node)

    return spoil


def multiscale(attributes):
    return attributes["ome"]["multiscales"][0]


def transforms(attributes, k):
    return multiscale(attributes)["datasets"][k]["coordinateTransformations"]


def up_one(attributes):
    body = attributes.pop("ome")
    attributes.update(body)


SPOILED = {
    "unit": edit(lambda a: multiscale(a)["axes"][4].update(unit="um")),
    "axis-type": edit(lambda a: multiscale(a)["axes"][1].update(type="space")),
    "version": edit(lambda a: a["ome"].update(version="0.4")),
    "place": edit(up_one),
    "half-voxel": edit(lambda a: transforms(a, 1)[1].update(translation=[0, 0, 0, 5, 10])),
    "level-scale": edit(lambda a: transforms(a, 1)[0].update(scale=[1, 1, 2, 1.5, 1])),
    "level-order": edit(lambda a: multiscale(a)["datasets"].reverse()),
    "array": edit(lambda a: multiscale(a)["datasets"][2].update(path="7")),
    "window": edit(lambda a: a["ome"]["omero"]["channels"][0]["window"].pop("start")),
    "color": edit(lambda a: a["ome"]["omero"]["channels"][1].update(color="red")),
    "no-multiscales": edit(lambda a: a["ome"].pop("multiscales")),
    "dimension-names": edit_array(lambda n: n.update(dimension_names=list("tczxy"))),
}


@pytest.mark.parametrize("rule", SPOILED)
def test_each_mistake_is_found(tmp_path, rule):
    uri = make(tmp_path)
    SPOILED[rule](uri)
    findings = lint(uri)
    assert rule in {finding.rule for finding in findings}
    assert all(f.fix and f.message and f.where for f in findings)


def test_a_missing_translation_is_a_missing_half_voxel(tmp_path):
    uri = make(tmp_path, origin=(0.0, 0.0, 0.0))
    edit(lambda a: [transforms(a, k).pop() for k in range(3)])(uri)
    findings = [f for f in lint(uri) if f.rule == "half-voxel"]
    # y and x of level 1, and z, y and x of level 2.
    assert [f.where for f in findings] == ["1", "1", "2", "2", "2"]


def test_levels_made_by_taking_voxels_need_none(tmp_path):
    uri = make(tmp_path, origin=(0.0, 0.0, 0.0))
    edit(lambda a: [transforms(a, k).pop() for k in range(3)])(uri)
    edit(lambda a: multiscale(a).update(type="stride"))(uri)
    assert lint(uri) == []


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16", "bool"])
def test_types_that_neuroglancer_cannot_show(tmp_path, dtype):
    uri = make(tmp_path)
    attributes = copy.deepcopy(read_json(join(uri, "zarr.json"))["attributes"])
    place = str(tmp_path / "other.zarr")
    group = zarr.open_group(place, mode="w", attributes=attributes)
    for k, shape in enumerate(SHAPES):
        group.create_array(str(k), shape=shape, dtype=dtype, dimension_names=list("tczyx"))
    assert {f.rule for f in lint(place)} == {"dtype"}


def test_a_plain_array_is_said_to_be_no_image(tmp_path):
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 5), dtype="uint8", chunks=(2, 5))
    array[:] = np.arange(20).reshape(4, 5)
    assert [f.rule for f in lint(str(tmp_path / "a.zarr"))] == ["no-multiscales"]
    level = describe(str(tmp_path / "a.zarr")).levels[0]
    assert (level.shape, level.chunk, level.axes) == ((4, 5), (2, 5), ("?", "?"))


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="nothing at this address"):
        lint(str(tmp_path / "none"))
