import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.register.syn import SynSettings, improved, moved, syn, unfit

pytest.importorskip("ants")

TEXTURE = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 40, 44)), 2.5)
TEXTURE = (1000 + 3000 * TEXTURE).astype(np.float32)
BEND = 1.5 * np.sin(np.indices(TEXTURE.shape)[[2, 0, 1]] / 9.0)
GRID = np.indices(TEXTURE.shape, dtype=float)
FIXED = ndimage.map_coordinates(TEXTURE, GRID + BEND, order=3, mode="nearest").astype(np.float32)
INNER = (slice(None), *(slice(6, -6),) * 3)


def error(settings):
    found = syn(FIXED, TEXTURE, settings)
    return float(np.linalg.norm((found - BEND)[INNER], axis=0).mean())


def test_more_iterations_reach_ants():
    before = float(np.linalg.norm(BEND[INNER], axis=0).mean())
    errors = [error(SynSettings("SyNOnly", p, "mattes")) for p in ("dry", "low", "medium")]
    assert before > errors[0] > errors[1] >= errors[2] - 0.05
    assert errors[2] < 0.4 * before


def test_the_same_chunk_gives_the_same_bits():
    settings = SynSettings("SyNOnly", "low", "mattes")
    np.testing.assert_array_equal(syn(FIXED, TEXTURE, settings), syn(FIXED, TEXTURE, settings))


@pytest.mark.parametrize("transform", ["SyN", "Elastic", "BSplineSyN"])
def test_every_model_moves_the_chunk_the_right_way(transform):
    before = float(np.linalg.norm(BEND[INNER], axis=0).mean())
    assert error(SynSettings(transform, "low", "mattes")) < 0.8 * before


def test_unknown_voxels_are_no_error():
    fixed, moving = FIXED.copy(), TEXTURE.copy()
    fixed[:8], moving[-4:] = np.nan, np.nan
    assert np.isfinite(syn(fixed, moving, SynSettings("SyNOnly", "dry", "mattes"))).all()


def test_no_files_are_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    syn(FIXED, TEXTURE, SynSettings("SyNOnly", "dry", "mattes"))
    assert list(tmp_path.iterdir()) == []


def test_the_displacement_moves_the_chunk_onto_the_fixed_one():
    gap = np.abs(moved(TEXTURE, BEND.astype(np.float32)) - FIXED)[INNER[1:]]
    assert np.nanmean(gap) < 0.03 * TEXTURE.std()


def test_a_chunk_gets_as_much_work_as_it_needs():
    settings = SynSettings("SyNOnly", "medium", "mattes")
    found = improved(FIXED, TEXTURE, settings)
    assert (found.preset, found.after > found.before) == ("medium", True)
    rng = np.random.default_rng(0)
    near = (TEXTURE + rng.normal(0, 30, TEXTURE.shape)).astype(np.float32)
    assert improved(TEXTURE, near, settings).preset in ("low", "high", None)


def test_what_makes_no_chunk_better_is_tried_again_and_then_left_out(monkeypatch):
    from warpbeam.kernels.register import syn as module

    tried, wrong = [], np.full((3, *FIXED.shape), 5.0, np.float32)

    def astray(fixed, moving, settings):
        tried.append(settings.preset)
        return wrong

    monkeypatch.setattr(module, "syn", astray)
    found = improved(FIXED, TEXTURE, SynSettings("SyNOnly", "low", "mattes"))
    assert tried == ["low", "high"]
    assert found.displacement is None
    assert found.after < found.before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v, None),
        (lambda v: v[:8], "thin"),
        (lambda v: np.full_like(v, 5), "constant fixed volume"),
        (lambda v: np.where(np.arange(v.shape[2]) < 4, v, np.nan).astype(np.float32), "little"),
    ],
)
def test_what_ants_cannot_judge_is_recognised(change, why):
    fixed = change(FIXED)
    found = unfit(fixed, TEXTURE[: len(fixed)])
    assert found is None if why is None else found.startswith(why)
