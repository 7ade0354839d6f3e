import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading


def _flat():
    y, x = np.mgrid[-1:1:30j, -1:1:40j]
    return (1 - 0.3 * (y**2 + x**2)).astype(np.float32)


@pytest.mark.parametrize("planes", [(), (5,)])
def test_correct_undoes_what_the_microscope_did(planes):
    shape = (*planes, 30, 40)
    image = np.random.default_rng(6).uniform(10, 200, shape)
    image[..., 3, 4] = np.nan
    seen = (image - 3) / 1.2 * _flat() + 7
    shading = Shading(_flat(), 7.0, 1.2, 3.0)
    corrected = shading.correct(seen, Box.of_shape(shape))
    assert corrected.dtype == np.float32
    assert np.allclose(corrected, image, rtol=1e-4, equal_nan=True)


def test_a_window_takes_its_part_of_the_flat_field():
    image = np.random.default_rng(7).integers(0, 255, (30, 40)).astype(np.uint8)
    shading = Shading(_flat(), 9.0)
    window = Box((4, 10), (20, 33))
    whole = shading.correct(image, Box.of_shape(image.shape))
    assert np.array_equal(shading.correct(image[window.slices], window), whole[window.slices])


def test_the_identity_is_known_as_such():
    assert Shading().is_identity
    assert not Shading(gain=1.01).is_identity
    assert not Shading(dark=1.0).is_identity
    assert not Shading(_flat()).is_identity
