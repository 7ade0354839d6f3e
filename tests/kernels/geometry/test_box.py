"""Boxes against sets of voxels."""

import itertools
import pickle

from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.geometry.box import Box


@st.composite
def boxes(draw):
    ends = draw(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=2))
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def voxels(box):
    return set(itertools.product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True))))


@given(boxes(), boxes())
def test_set_operations(a, b):
    assert voxels(a & b) == voxels(a) & voxels(b)
    assert bool(a & b) == bool(voxels(a) & voxels(b))
    assert a.meets(b) == bool(voxels(a) & voxels(b))
    assert voxels(a) | voxels(b) <= voxels(a | b)
    assert a.size == len(voxels(a))
    if voxels(b):
        assert a.contains(b) == (voxels(b) <= voxels(a))


@given(boxes(), st.tuples(st.integers(-3, 3), st.integers(-3, 3)))
def test_moves(box, by):
    moved = box.shift(by)
    assert voxels(moved) == {(y + by[0], x + by[1]) for y, x in voxels(box)}
    assert moved.relative_to(by) == box
    assert box.pad((1, 2)).pad((-1, -2)) == box


def test_box_of_a_shape_is_a_slice_of_an_array():
    box = Box.of_shape((2, 3), (5, 7))
    assert box == Box((5, 7), (7, 10))
    assert box.slices == (slice(5, 7), slice(7, 10))
    assert pickle.loads(pickle.dumps(box)) == box
