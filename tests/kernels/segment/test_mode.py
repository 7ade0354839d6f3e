"""The mode of blocks is TensorStore's, to the bit."""

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.segment.mode import reduced_mode


@given(
    st.integers(0, 10_000),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.integers(1, 6),
    st.sampled_from(["uint8", "uint32", "uint64"]),
)
def test_the_mode_is_that_of_tensorstore(seed, factor, blocks, values, dtype):
    shape = tuple(f * n for f, n in zip(factor, blocks, strict=True))
    labels = np.random.default_rng(seed).integers(0, values, shape).astype(dtype)
    labels *= np.iinfo(dtype).max // 7
    before = labels.copy()
    expected = ts.downsample(ts.array(labels), list(factor), "mode").read().result()
    found = reduced_mode(labels, factor)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)


def test_blocks_that_do_not_divide_the_image():
    with pytest.raises(ValueError, match="do not divide"):
        reduced_mode(np.zeros((4, 5), np.uint32), (2, 2))
