"""Samples that stand for a whole shard."""

import numpy as np
import pytest

from warpbeam.transforms.drawn import brightness, sampled


@pytest.mark.parametrize("length", [1, 7, 16, 17, 40, 2048])
def test_samples_lie_in_the_middle(length):
    """A half that is covered is half of the samples, whichever half it is."""
    (part,) = sampled((length,))
    taken = np.arange(length)[part]
    assert len(taken) >= 1
    assert len(taken) == pytest.approx(length / 16, abs=1)
    assert abs(taken.mean() - (length - 1) / 2) <= 8
    assert taken[0] <= 8


def test_brightness_is_of_what_is_known():
    assert brightness(np.array([np.nan, np.inf])) == []
    levels = brightness(np.array([np.nan, *np.arange(101.0)]))
    assert (levels[0], levels[16], levels[-1]) == (0, 50, 100)
