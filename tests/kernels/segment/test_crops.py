import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.segment.crops import crops

IMAGES = [np.arange(1, 13 * 17 + 1, dtype=np.uint16).reshape(13, 17) * k for k in (1, 2)]


@given(st.integers(0, 12), st.integers(0, 16), st.integers(1, 9))
def test_each_pixel_is_the_one_at_its_distance_from_the_centre(y, x, side):
    found = crops(IMAGES, np.array([y + 0.2]), np.array([x - 0.3]), side)
    assert found.shape == (1, 2, side, side)
    assert found.dtype == np.uint16
    wide = [np.pad(image, side) for image in IMAGES]
    first = [c + side - side // 2 for c in (y, x)]
    for made, image in zip(found[0], wide, strict=True):
        wanted = image[first[0] : first[0] + side, first[1] : first[1] + side]
        np.testing.assert_array_equal(made, wanted)


def test_no_object_is_no_crop():
    assert crops(IMAGES, np.empty(0), np.empty(0), 5).shape == (0, 2, 5, 5)
