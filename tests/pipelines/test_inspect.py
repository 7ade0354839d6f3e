import json
import sys

import numpy as np
import pytest
import zarr

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines.inspect import inspect, render, run
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.volume import VolumeSpec, create


def make(place, format="zarr3"):
    spec = VolumeSpec(
        str(place),
        (1, 1, 2, 60, 60),
        "uint8",
        (1, 1, 2, 8, 8),
        (1, 1, 2, 32, 32),
        format=format,
        voxel=(2.0, 0.5, 0.5),
        unit="micrometer",
        factors=((1, 2, 2),),
        channels=("DAPI",),
    )
    volume = create(spec)
    box = Box((0, 0, 0, 0, 0), (1, 1, 2, 32, 60))
    volume.write_with_levels(box, np.ones(box.shape, np.uint8))
    return spec.uri


@pytest.mark.parametrize("format", ["zarr3", "zarr2", "n5", "precomputed"])
def test_levels_and_what_is_stored(tmp_path, format):
    uri = make(tmp_path / "v.ome.zarr", format)
    report = json.loads(json.dumps(inspect(uri)))
    assert report["format"] == format
    assert report["valid"]
    assert report["unit"] == ("nanometer" if format == "precomputed" else "micrometer")
    fine, coarse = report["levels"]
    assert fine["shape"][-3:] == [2, 60, 60]
    assert coarse["shape"][-3:] == [2, 30, 30]
    assert fine["chunk"][-3:] == [2, 8, 8]
    # The upper 32 of 60 rows: half of the 2 x 2 shards, or 4 x 8 of 8 x 8 chunks.
    sharded = fine["shard"][-1] == 32
    assert (fine["objects"], fine["objects_expected"]) == ((2, 4) if sharded else (32, 64))
    assert sharded == (format in ("zarr3", "precomputed"))
    files = [p for p in (tmp_path / "v.ome.zarr" / fine["path"]).rglob("*") if p.is_file()]
    bodies = [p for p in files if p.name not in ("zarr.json", ".zarray", "attributes.json")]
    assert fine["stored_bytes"] == sum(p.stat().st_size for p in bodies)


def test_validators_speak_for_ome_zarr(tmp_path):
    report = inspect(make(tmp_path / "v.ome.zarr"))
    assert report["validators"] == {"ome-zarr-models": "valid", "ngff-zarr": "valid"}
    assert inspect(make(tmp_path / "n5", "n5"))["validators"] == {}


def test_validators_and_lint_turn_a_volume_invalid(tmp_path):
    uri = make(tmp_path / "v.ome.zarr")
    node = json.loads((tmp_path / "v.ome.zarr" / "zarr.json").read_text())
    node["attributes"]["ome"]["multiscales"][0]["axes"].reverse()
    (tmp_path / "v.ome.zarr" / "zarr.json").write_text(json.dumps(node))
    report = inspect(uri)
    assert not report["valid"]
    assert report["validators"]["ome-zarr-models"].startswith("invalid")
    assert "dimension-names" in {f["rule"] for f in report["findings"]}
    text = render(report)
    assert "NOT valid" in text
    assert "to do" in text


def test_validators_that_are_missing_are_said_to_be(tmp_path, monkeypatch):
    uri = make(tmp_path / "v.ome.zarr")
    for name in ("ome_zarr_models", "ngff_zarr"):
        monkeypatch.setitem(sys.modules, name, None)
    report = inspect(uri)
    assert all(word.startswith("not installed") for word in report["validators"].values())
    assert report["valid"]


def test_a_runs_folder_is_its_volume(tmp_path):
    uri = make(tmp_path / "out" / "volume.ome.zarr")
    assert inspect(str(tmp_path / "out")) == inspect(uri)


def test_a_plain_array(tmp_path):
    place = str(tmp_path / "a.zarr")
    zarr.create_array(place, shape=(4, 6), dtype="float64", chunks=(2, 3))[:] = 1
    report = inspect(place)
    assert report["levels"][0]["objects"] == 4
    assert {f["rule"] for f in report["findings"]} == {"dtype", "no-multiscales"}
    assert "float64" in render(report)


def test_text_has_the_numbers(tmp_path):
    text = render(inspect(make(tmp_path / "v.ome.zarr")))
    assert "zarr3, OME-NGFF 0.5, axes t c z y x" in text
    assert "channel DAPI: colour FFFFFF, window 0 to 255" in text
    assert "1 x 1 x 2 x 60 x 60 uint8" in text
    assert "voxel 1 x 1 x 2 x 1 x 1 micrometer" in text
    assert "2 of 4 objects" in text
    assert "opens in viewers" in text


def test_exit_code_says_whether_it_is_valid(tmp_path, capsys):
    assert run(make(tmp_path / "v.ome.zarr")) == 0
    assert "opens in viewers" in capsys.readouterr().out
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 6), dtype="float64", chunks=(2, 3))
    assert run(str(tmp_path / "a.zarr")) == 1


def test_nothing_there_and_nothing_known(tmp_path):
    with pytest.raises(InputError, match="nothing at this address"):
        inspect(str(tmp_path / "none"))
    with pytest.raises(InputError, match="without their metadata"):
        inspect(str(tmp_path))
