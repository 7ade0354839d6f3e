import numpy as np
import pytest
from bent_chunk import BEND, FIXED, INNER, TEXTURE

from warpbeam.kernels.register.chunk_engine import filled, improved, moved, unfit


class Scripted:
    """An engine that says what it is told to say."""

    def __init__(self, accuracy, *says):
        self.accuracy, self.says, self.asked = accuracy, list(says), []

    def displacement(self, fixed, moving, accuracy):
        self.asked.append(accuracy)
        return np.asarray(self.says.pop(0), np.float32)


WRONG = np.full_like(BEND, 5.0)
UNKNOWN = np.full_like(BEND, np.nan)


def test_the_displacement_moves_the_chunk_onto_the_fixed_one():
    gap = np.abs(moved(TEXTURE, BEND.astype(np.float32)) - FIXED)[INNER[1:]]
    assert np.nanmean(gap) < 0.03 * TEXTURE.std()


def test_what_makes_a_chunk_better_is_kept():
    engine = Scripted("low", BEND)
    found = improved(FIXED, TEXTURE, engine)
    assert (found.accuracy, engine.asked) == ("low", ["low"])
    assert found.after > found.before
    np.testing.assert_array_equal(found.displacement, BEND.astype(np.float32))


def test_chunks_that_are_good_already_get_less_work():
    near = (TEXTURE + np.random.default_rng(0).normal(0, 30, TEXTURE.shape)).astype(np.float32)
    engine = Scripted("medium", WRONG, WRONG)
    improved(TEXTURE, near, engine)
    assert engine.asked == ["low", "high"]


@pytest.mark.parametrize("first", [WRONG, UNKNOWN])
def test_what_makes_no_chunk_better_is_tried_again(first):
    engine = Scripted("low", first, BEND)
    found = improved(FIXED, TEXTURE, engine)
    assert (found.accuracy, engine.asked) == ("high", ["low", "high"])


def test_what_never_makes_a_chunk_better_is_left_out():
    found = improved(FIXED, TEXTURE, Scripted("low", WRONG, UNKNOWN))
    assert (found.displacement, found.accuracy) == (None, None)
    assert found.after < found.before


def test_what_throws_a_chunk_out_of_view_makes_it_no_better():
    away = np.full_like(BEND, 1000.0)
    found = improved(FIXED, TEXTURE, Scripted("low", away, away))
    assert (found.displacement, found.accuracy) == (None, None)
    assert np.isnan(found.after)


def test_unknown_voxels_are_filled_with_the_mean_of_the_others():
    holed = TEXTURE.copy()
    holed[:8] = np.nan
    np.testing.assert_allclose(filled(holed)[:8], TEXTURE[8:].mean(), rtol=1e-5)
    np.testing.assert_array_equal(filled(holed)[8:], TEXTURE[8:])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v, None),
        (lambda v: v[:8], "thin"),
        (lambda v: np.full_like(v, 5), "constant fixed volume"),
        (lambda v: np.where(np.arange(v.shape[2]) < 4, v, np.nan).astype(np.float32), "little"),
    ],
)
def test_what_no_engine_can_judge_is_recognised(change, why):
    fixed = change(FIXED)
    found = unfit(fixed, TEXTURE[: len(fixed)])
    assert found is None if why is None else found.startswith(why)
