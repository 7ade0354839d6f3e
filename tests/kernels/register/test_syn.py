import numpy as np
import pytest
from bent_chunk import BEFORE, FIXED, TEXTURE, apart

from warpbeam.kernels.register.syn import Ants

pytest.importorskip("ants")


def found(accuracy, transform="SyNOnly", fixed=FIXED, moving=TEXTURE):
    return Ants(transform, accuracy, "mattes").displacement(fixed, moving, accuracy)


def test_more_iterations_reach_ants():
    errors = [apart(found(accuracy)) for accuracy in ("dry", "low", "medium")]
    assert BEFORE > errors[0] > errors[1] >= errors[2] - 0.05
    assert errors[2] < 0.4 * BEFORE


def test_the_same_chunk_gives_the_same_bits():
    np.testing.assert_array_equal(found("low"), found("low"))


@pytest.mark.parametrize("transform", ["SyN", "Elastic", "BSplineSyN"])
def test_every_model_moves_the_chunk_the_right_way(transform):
    assert apart(found("low", transform)) < 0.8 * BEFORE


def test_unknown_voxels_are_no_error():
    fixed, moving = FIXED.copy(), TEXTURE.copy()
    fixed[:8], moving[-4:] = np.nan, np.nan
    assert np.isfinite(found("dry", fixed=fixed, moving=moving)).all()


def test_no_files_are_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found("dry")
    assert list(tmp_path.iterdir()) == []
