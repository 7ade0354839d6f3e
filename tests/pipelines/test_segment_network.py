"""`segment` with a network in place of a threshold; a stand-in takes the part of cellpose."""

import importlib.util
import os
import pickle

import cellpose_stand_in
import numpy as np
import pytest
import tifffile
from plates import rows_of, segment, write_plate
from running import markers, object_hashes

from warpbeam.pipelines import cli
from warpbeam.pipelines.segment import SegmentJob
from warpbeam.pipelines.segment_config import SegmentConfig, object_settings
from warpbeam.pipelines.segment_network import network_settings
from warpbeam.transforms.segment.finder import Finder
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.errors import InputError

NETWORK = {"threshold": {"method": "cellpose"}}


@pytest.fixture
def seen(monkeypatch):
    return cellpose_stand_in.put_in_place(monkeypatch)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_plate(tmp_path_factory.mktemp("plate") / "images")


def test_a_network_finds_what_the_same_threshold_finds(seen, table, tmp_path):
    """The stand-in's labels become the masks, plates and rows of a threshold of its level."""
    outcome = segment(table, tmp_path / "network", **NETWORK)
    segment(table, tmp_path / "threshold",
            threshold={"method": "manual", "manual": cellpose_stand_in.LEVEL})  # fmt: skip
    first, second = tmp_path / "network", tmp_path / "threshold"
    assert outcome.numbers["objects"] == 4 * 6
    for part in ("masks", "plates"):
        assert object_hashes(first / part) == object_hashes(second / part)
    assert rows_of(first) == rows_of(second)
    assert tables.read(str(first / "cells.parquet")) == tables.read(str(second / "cells.parquet"))


def test_one_network_is_loaded_and_asked_for_each_image(seen, table, tmp_path):
    chosen = {"diameter_px": 14.0, "flow_threshold": 0.5, "cell_probability": -2.0}
    run = {"workers": 2}
    segment(table, tmp_path / "run", cellpose=chosen, run=run, **NETWORK)
    assert seen.loaded == [{"gpu": True, "pretrained_model": "cpsam_v2"}]
    assert len(seen.asked) == 4
    assert all(
        (a["diameter"], a["flow_threshold"], a["cellprob_threshold"]) == (14.0, 0.5, -2.0)
        for a in seen.asked
    )
    segment(table, tmp_path / "run", cellpose=chosen, run=run, **NETWORK)
    assert len(seen.loaded) == 1  # nothing was left to do


def test_a_threshold_loads_no_network(seen, table, tmp_path):
    segment(table, tmp_path / "run")
    assert seen.loaded == []


def test_grey_values_are_those_of_the_images(seen, tmp_path):
    """Images of floats, which cellpose writes over."""
    table = write_plate(tmp_path / "images", wells=("A1",), tiles=1)
    for path in (tmp_path / "images").glob("*.tif"):
        tifffile.imwrite(path, tifffile.imread(path).astype(np.float32))
    segment(table, tmp_path / "run", **NETWORK)
    image = tifffile.imread(tmp_path / "images" / "A1_T0_1_nuclei.tif")
    (mask,) = (tmp_path / "run" / "masks").rglob("*.tif")
    labels = tifffile.imread(mask)
    for row in tables.read(str(tmp_path / "run" / "cells.parquet")):
        mean = image[labels == row["label"]].mean()
        assert row["nuclei:intensity_mean"] == pytest.approx(mean, rel=1e-6)


def test_a_finder_travels_without_its_network(seen):
    config = SegmentConfig(plate="p", output="o", **NETWORK)
    find = Finder(object_settings(config), network_settings(config))
    find(np.zeros((8, 8), np.uint16))
    assert len(seen.loaded) == 1
    assert len(pickle.dumps(find)) < 2000


def test_weights_that_were_trained_again_segment_again(seen, table, tmp_path):
    weights = tmp_path / "mine"
    weights.write_bytes(b"weights")
    settings = NETWORK | {"cellpose": {"model": str(weights)}}
    segment(table, tmp_path / "run", **settings)
    assert seen.loaded == [{"gpu": True, "pretrained_model": str(weights)}]
    before = markers(tmp_path / "run", "segment")
    segment(table, tmp_path / "run", **settings)
    assert markers(tmp_path / "run", "segment") == before
    os.utime(weights, ns=(1, 1))
    segment(table, tmp_path / "run", **settings)
    assert len(seen.asked) == 2 * 4


def test_a_model_that_is_not_there_is_refused_before_any_work(seen, table, tmp_path):
    with pytest.raises(InputError, match="no such model") as caught:
        segment(table, tmp_path / "run", cellpose={"model": "cpsan"}, **NETWORK)
    assert "cpsam_v2" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_network_that_is_not_installed_is_refused_before_any_work(
    table, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = ["segment", str(table), str(tmp_path / "out"), "--quiet",
            "--set", "threshold.method=cellpose"]  # fmt: skip
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert "not installed" in said
    assert "pip install warpbeam[cellpose]" in said
    assert not (tmp_path / "out").exists()


def test_a_failed_download_costs_no_more_than_its_images(seen, table, tmp_path, monkeypatch):
    """What cannot be loaded is tried again, then said of each image, and done by the next run."""
    from cellpose import models

    def away(**_):
        raise ConnectionError("the server of the models is away")

    whole = models.CellposeModel
    monkeypatch.setattr(models, "CellposeModel", away)
    outcome = segment(table, tmp_path / "run", expect=1, run={"attempts": 1}, **NETWORK)
    assert {f.stage for f in outcome.failures} == {"segment"}
    monkeypatch.setattr(models, "CellposeModel", whole)
    assert segment(table, tmp_path / "run", **NETWORK).numbers["objects"] == 4 * 6


def test_the_plan_counts_the_network(table, tmp_path):
    plans = [
        SegmentJob(SegmentConfig(plate=str(table), output=str(tmp_path / "o"), **chosen)).plan()
        for chosen in ({}, NETWORK)
    ]
    assert plans[1].core_hours > 100 * plans[0].core_hours
    assert plans[1].memory - plans[0].memory > 2e9
    plans[1].refuse_if_too_large(4.0)
