"""A network's labels, from a stand-in: what is asked of it, and what is made of its answer."""

import inspect
from dataclasses import replace

import cellpose_stand_in
import numpy as np
import pytest
from plates import discs, picture

from warpbeam.kernels.segment.cellpose import Cellpose, CellposeSettings, check_model
from warpbeam.kernels.segment.plate import ObjectSettings, find_objects
from warpbeam.kernels.segment.threshold import ThresholdSettings

SETTINGS = CellposeSettings("cpsam_v2", 17.0, 0.3, -1.0)
OBJECTS = ObjectSettings(
    ThresholdSettings("cellpose", 3.5, 0.0, 51, 0.2), 0.0, False, 0.0, 1.0, 0, 36000, False, 0.0
)
DISCS = discs(1)
IMAGE = picture(DISCS, 1)


@pytest.fixture
def seen(monkeypatch):
    return cellpose_stand_in.put_in_place(monkeypatch)


def test_the_settings_reach_the_network(seen):
    Cellpose(SETTINGS)(IMAGE)
    assert seen.loaded == [{"gpu": True, "pretrained_model": "cpsam_v2"}]
    assert seen.asked == [
        {"dtype": np.float32, "diameter": 17.0, "flow_threshold": 0.3, "cellprob_threshold": -1.0,
         "min_size": -1}
    ]  # fmt: skip
    Cellpose(replace(SETTINGS, diameter_px=0.0))(IMAGE)
    assert seen.asked[1]["diameter"] is None


def test_an_image_stays_as_it_is(seen):
    image = IMAGE.astype(np.float32)
    Cellpose(SETTINGS)(image)
    np.testing.assert_array_equal(image, IMAGE)


def test_objects_are_numbered_in_raster_order(seen):
    found = find_objects(IMAGE, OBJECTS, Cellpose(SETTINGS)).image()
    order = list(dict.fromkeys(DISCS[DISCS > 0].tolist()))
    expected = np.zeros(DISCS.shape, int)
    for number, disc in enumerate(order, start=1):
        expected[disc == DISCS] = number
    np.testing.assert_array_equal(found, expected)


def test_objects_pass_the_same_filters(seen):
    network, areas = Cellpose(SETTINGS), np.bincount(DISCS.ravel())[1:]
    bound = int(np.sort(areas)[2])
    assert find_objects(IMAGE, replace(OBJECTS, smallest=bound), network).count == 3
    assert find_objects(IMAGE, replace(OBJECTS, largest=bound), network).count == 2
    y, x = np.nonzero(DISCS)
    cut = IMAGE[: y.max(), x.min() + 1 :]
    cut_discs = DISCS[: y.max(), x.min() + 1 :]
    edges = (cut_discs[0], cut_discs[-1], cut_discs[:, 0], cut_discs[:, -1])
    at_edge = set(np.concatenate(edges).tolist()) - {0}
    assert at_edge
    inside = find_objects(cut, replace(OBJECTS, clear_border=True), network)
    assert inside.count == 6 - len(at_edge)
    assert find_objects(IMAGE, replace(OBJECTS, apart_px=500.0), network).count == 0


def test_touching_objects_stay_apart(seen):
    """Labels that touch are two objects, and one in two pieces is one."""
    labels = np.array([[0, 7, 7, 4], [7, 0, 0, 4], [0, 0, 0, 0], [9, 0, 0, 4]], np.int32)
    found = find_objects(np.zeros((4, 4), np.uint16), OBJECTS, lambda image: labels).image()
    np.testing.assert_array_equal(found, [[0, 1, 1, 2], [1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 0, 2]])


def test_an_image_without_cells_and_one_of_a_single_row(seen):
    network = Cellpose(SETTINGS)
    assert find_objects(np.zeros((5, 6), np.uint8), OBJECTS, network).count == 0
    row = np.array([[0, 900, 900, 0, 900]], np.uint16)
    np.testing.assert_array_equal(find_objects(row, OBJECTS, network).image(), [[0, 1, 1, 0, 2]])


def test_an_unknown_model_is_not_the_default_one(seen, tmp_path):
    with pytest.raises(ValueError, match=r"cpsam_v2, or a file"):
        Cellpose(replace(SETTINGS, model="cpsan"))
    assert seen.loaded == []
    (tmp_path / "mine").write_bytes(b"weights")
    check_model(str(tmp_path / "mine"))


def test_the_package_takes_what_is_given_it():
    """Where the real one is installed; the stand-in has the same names."""
    models = pytest.importorskip("cellpose.models")
    asked = inspect.signature(models.CellposeModel.eval).parameters
    assert {"x", "diameter", "flow_threshold", "cellprob_threshold", "min_size"} <= set(asked)
    made = inspect.signature(models.CellposeModel).parameters
    assert {"gpu", "pretrained_model"} <= set(made)
    assert {"cpsam_v2"} <= set(models.MODEL_NAMES)
    assert models.get_user_models() is not None
