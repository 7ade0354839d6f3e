"""Runs, found by looking at one pixel after another."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpbeam.kernels.segment.runs import runs_above, runs_of

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=19)


def slow_runs(values):
    found = []
    for row, line in enumerate(values):
        column = 0
        for value, group in itertools.groupby(line.tolist()):
            size = len(list(group))
            if value:
                found.append((row, column, column + size - 1, value))
            column += size
    return found


@settings(max_examples=150)
@given(
    hnp.arrays(bool, SHAPES)
    | hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 2))
    | hnp.arrays(np.int32, SHAPES, elements=st.sampled_from([0, 1, 1 << 20]))
)
def test_runs_of_any_image(values):
    assert list(zip(*(x.tolist() for x in runs_of(values)), strict=True)) == slow_runs(values)


def test_of_a_part_of_an_image():
    values = np.random.default_rng(0).integers(0, 2, (30, 64))[3:20, 5:50]
    assert list(zip(*(x.tolist() for x in runs_of(values)), strict=True)) == slow_runs(values)


@pytest.mark.parametrize("reach", [0, 1])
@given(hnp.arrays(bool, SHAPES))
def test_runs_that_meet(reach, mask):
    row, left, right, _ = runs_of(mask)
    here, there = runs_above(row, left, right, width=mask.shape[1], reach=reach)
    wanted = [
        (a, b)
        for a, b in itertools.product(range(row.size), repeat=2)
        if row[a] == row[b] + 1 and left[a] <= right[b] + reach and left[b] <= right[a] + reach
    ]
    assert list(zip(here.tolist(), there.tolist(), strict=True)) == wanted
