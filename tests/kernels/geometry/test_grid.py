"""A block grid cuts every voxel into exactly one block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sizes, sizes)
def test_blocks_tile_the_volume(shape, block):
    grid = BlockGrid(shape, block)
    seen = np.zeros(shape, int)
    for index in grid.indices():
        seen[grid.box(index).slices] += 1
    assert (seen == 1).all()
    assert len(list(grid.indices())) == len(grid)


@given(sizes, sizes, st.tuples(st.integers(-5, 12), st.integers(-5, 12)), sizes)
def test_touching_is_what_a_scan_would_find(shape, block, start, size):
    grid = BlockGrid(shape, block)
    box = Box.of_shape(size, start)
    assert list(grid.touching(box)) == [i for i in grid.indices() if grid.box(i).meets(box)]


@pytest.mark.parametrize(("shape", "block"), [((4, 4), (2,)), ((4,), (0,))])
def test_bad_grids(shape, block):
    with pytest.raises(ValueError, match="block"):
        BlockGrid(shape, block)
