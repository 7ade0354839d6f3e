"""Labels are copied exactly; SOFIMA's own black-box cases for warping, with their numbers."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import identity
from warpbeam.kernels.maps.sofima import from_sofima
from warpbeam.kernels.warp.image import warp_image
from warpbeam.kernels.warp.labels import warp_labels
from warpbeam.kernels.warp.source import Source


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_label_is_copied(ndim):
    rng = np.random.default_rng(ndim)
    shape = (90, 70) if ndim == 2 else (12, 40, 30)
    labels = rng.integers(0, 2**64, shape, dtype=np.uint64)
    m = identity(Lattice((0.0,) * ndim, (10.0,) * ndim, tuple(n // 10 + 2 for n in shape)))
    m.u[:] = rng.uniform(-4, 4, m.u.shape)
    box = Box.of_shape(shape)
    got = warp_labels(Source.whole(labels, ndim), m, box, background=2**63 + 1)
    wrong = 0
    for p in map(tuple, np.argwhere(np.ones(shape))[:: 7 if ndim == 2 else 31]):
        first = [c // 10 for c in p]
        share = [c / 10 - i for c, i in zip(p, first, strict=True)]
        u = np.zeros(ndim)
        for corner in np.ndindex(*[2] * ndim):
            weight = np.prod([s if c else 1 - s for s, c in zip(share, corner, strict=True)])
            u += weight * m.u[(slice(None), *np.add(first, corner))]
        where = p + u
        nearest = np.floor(where + 0.5).astype(int)
        inside = ((nearest >= 0) & (nearest < shape)).all()
        wrong += got[p] != (labels[tuple(nearest)] if inside else 2**63 + 1)
    assert wrong == 0


def test_halves_go_up_everywhere():
    """The same rule on both sides of a boundary between cells, and for floats and labels."""
    labels = np.arange(1100, dtype=np.uint64)[None].repeat(4, axis=0)
    m = identity(Lattice((0.0, 0.0), (100.0, 100.0), (2, 12)))
    m.u[1] = 0.5
    box = Box((0, 0), (4, 1099))
    got = warp_labels(Source.whole(labels), m, box)
    np.testing.assert_array_equal(got, labels[:, 1:])
    image = warp_image(Source.whole(labels.astype(np.float32)), m, box, "nearest")
    np.testing.assert_array_equal(image, got)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint32, np.int64, np.float64])
def test_any_dtype(dtype):
    labels = np.arange(30).reshape(5, 6).astype(dtype)
    m = identity(Lattice((0.0, 0.0), (1.0, 1.0), (5, 6)))
    got = warp_labels(Source.whole(labels), m, Box.of_shape((5, 6)))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, labels)


def test_sofima_translated_sections():
    labels = np.zeros((2, 100, 100), np.uint64)
    labels[0, 40, 30] = 42
    labels[1, 50, 40] = 2**40
    array = np.zeros((2, 2, 15, 15))
    array[0, 0] = 10
    array[1, 1] = 17
    box = Box((20, 10), (100, 100))
    got = warp_labels(Source.whole(labels), from_sofima(array, 10), box)
    expected = np.zeros((2, 80, 90), np.uint64)
    expected[0, 20, 10] = 42
    expected[1, 13, 30] = 2**40
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos"])
def test_sofima_rhombus(interpolation):
    y, x = np.mgrid[-50:50, -50:50]
    image = np.where(np.abs(y) + np.abs(x) < 25, 255, 0).astype(np.uint8)
    c = np.sqrt(0.5)
    array = np.stack([c * x - c * y - x, c * x + c * y - y])[:, None, ::10, ::10]
    got = warp_image(
        Source.whole(image), from_sofima(array, 10).section(0), Box.of_shape((100, 100)),
        interpolation,
    )  # fmt: skip
    square = np.zeros((100, 100), bool)
    square[33:68, 33:68] = True
    assert (got[square] > 128).all()
    assert (got[~square] < 64).all()


def test_sofima_translated_plane():
    labels = np.zeros((100, 100), np.uint64)
    labels[40, 30] = 42
    labels[50, 40] = 2**40
    array = np.zeros((2, 1, 25, 25))
    array[0] = 10
    array[1] = 17
    m = from_sofima(array, (4, 5)).section(0)
    got = warp_labels(Source.whole(labels), m, Box.of_shape((100, 100)))
    expected = np.zeros((100, 100), np.uint64)
    expected[23, 20] = 42
    expected[33, 30] = 2**40
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
def test_sofima_translated_volume(interpolation):
    image = np.zeros((10, 100, 100), np.uint16)
    image[5, 40, 30] = 42
    image[4, 50, 40] = 16
    array = np.zeros((3, 10, 25, 25))
    array[0], array[1], array[2] = 10, 17, 2
    m = from_sofima(array, (1, 4, 5))
    got = warp_image(Source.whole(image, 3), m, Box.of_shape((10, 100, 100)), interpolation)
    expected = np.zeros((10, 100, 100), np.uint16)
    expected[3, 23, 20] = 42
    expected[2, 33, 30] = 16
    np.testing.assert_array_equal(got, expected)
