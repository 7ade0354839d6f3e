"""`segment` on sections that do not lie on one another: labelled one by one, linked by flow."""

import numpy as np
import pytest
from neurites import neurites
from running import _run, markers, object_hashes
from solids import same_partition, write_image

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.metrics import agreement
from warpbeam.pipelines import segment_volume
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
from warpbeam.transforms.storage import tables, volume

DEPTH, SIDE = 6, 160
SETTINGS = {
    "volume": {"chunk_3d": (1, 80, 80), "shard_3d": (2, 160, 160), "pyramid": False},
    "labels": {"fan_out": 2},
    "threshold": {"method": "manual", "manual": 0.5},
    "link": {"enabled": True},
}


@pytest.fixture(scope="module")
def stack():
    return neurites("elastic", depth=DEPTH, size=SIDE, count=45, seed=1)


@pytest.fixture(scope="module")
def image(stack, tmp_path_factory):
    """Grey values for the flow, and 0 on membranes for the threshold."""
    grey = np.where(stack.truth > 0, np.maximum(stack.images, 1), 0).astype(np.uint8)
    return write_image(tmp_path_factory.mktemp("image") / "image.ome.zarr", grey, (30.0, 4.0, 4.0))


def segment(image, output, **changed):
    settings = {**SETTINGS, **changed}
    return _run(segment_volume.run, SegmentVolumeConfig, image, output, (), settings)


def labels_of(run):
    level = volume.open_volume(str(run / "volume.ome.zarr" / "labels" / "objects")).level(0)
    return level.read(Box.of_shape(level.shape))[0, 0]


@pytest.fixture(scope="module")
def linked(image, tmp_path_factory):
    run = tmp_path_factory.mktemp("linked") / "run"
    return run, segment(image, run)


def test_neurites_are_followed_through_the_sections(stack, image, linked, tmp_path):
    scores = agreement(stack.truth, labels_of(linked[0]).astype(np.int64))
    segment(image, tmp_path / "plain", link={"enabled": False})
    plain = agreement(stack.truth, labels_of(tmp_path / "plain").astype(np.int64))
    assert scores.rand_error < 0.02
    assert plain.rand_error > 10 * scores.rand_error


def test_the_report_shows_the_links(linked):
    from warpbeam.pipelines import report

    run, outcome = linked
    page = (run / report.write(str(run))).read_text()
    assert ">Links<" in page
    assert f"{outcome.numbers['links']} links between sections" in page
    assert "could not be drawn" not in page


def test_links_are_listed(linked):
    run, outcome = linked
    rows = tables.read(str(run / "links.parquet"))
    assert len(rows) == outcome.numbers["links"] > 50
    assert sum(row["gap"] == 2 for row in rows) == outcome.numbers["bridges"]
    labels = labels_of(run)
    for row in rows:
        assert row["iou"] >= 0.15
        assert max(row["of_first"], row["of_second"]) >= row["iou"]
        for z in (row["z"], row["z"] + row["gap"]):
            assert (labels[z] == row["object"]).any()


@pytest.mark.parametrize("depth", [1, 6])
def test_any_depth_of_blocks_gives_the_same_objects(image, linked, tmp_path, depth):
    volume = {**SETTINGS["volume"], "shard_3d": (depth, 160, 160)}
    segment(image, tmp_path / "run", volume=volume)
    assert same_partition(labels_of(tmp_path / "run"), labels_of(linked[0]))


def test_blocks_of_a_section_are_joined(stack, image, tmp_path):
    volume = {**SETTINGS["volume"], "shard_3d": (3, 80, 80)}
    segment(image, tmp_path / "run", volume=volume)
    scores = agreement(stack.truth, labels_of(tmp_path / "run").astype(np.int64))
    assert scores.rand_error < 0.04


def test_a_blank_section_is_bridged(stack, image, tmp_path):
    grey = np.where(stack.truth > 0, np.maximum(stack.images, 1), 0).astype(np.uint8)
    still = np.stack([grey[0], grey[0], np.zeros_like(grey[0]), grey[0]])
    blank = write_image(tmp_path / "blank.ome.zarr", still, (30.0, 4.0, 4.0))
    outcome = segment(blank, tmp_path / "run")
    found = labels_of(tmp_path / "run")
    np.testing.assert_array_equal(found[3], found[0])
    assert not found[2].any()
    assert outcome.numbers["bridges"] == len(np.unique(found[1])) - 1


def test_what_does_not_return_is_not_linked(image, linked, tmp_path):
    outcome = segment(
        image, tmp_path / "run", link={"enabled": True, "least_return": 0.5, "gap": 1}
    )
    rows = tables.read(str(tmp_path / "run" / "links.parquet"))
    assert 0.8 * linked[1].numbers["links"] < outcome.numbers["links"] == len(rows)
    assert all(0.5 <= row["returned"] <= 1 for row in rows)


def test_a_second_run_does_nothing(image, linked):
    before = markers(linked[0]), object_hashes(linked[0] / "volume.ome.zarr")
    segment(image, linked[0])
    assert (markers(linked[0]), object_hashes(linked[0] / "volume.ome.zarr")) == before
