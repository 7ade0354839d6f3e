"""SOFIMA's own black-box cases for coordinate maps, with their numbers, xyz turned to zyx."""

import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.boxes import inner_box, inner_lattice, outer_box, outer_lattice
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_absolute, from_affine
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.maps.irregular import irregular, mask_irregular
from warpbeam.kernels.maps.points import warp_points
from warpbeam.kernels.maps.resample import resample
from warpbeam.kernels.maps.sofima import from_sofima, to_sofima

START = (100, 200, 10)


def starts(lattice):
    """The first node in units of the stride, as in SOFIMA's boxes."""
    return tuple(o / s for o, s in zip(lattice.origin, lattice.stride, strict=True))


@pytest.mark.parametrize(("shape", "stride"), [((2, 1, 50, 50), 10), ((3, 25, 50, 50), 7)])
def test_absolute_and_back(shape, stride):
    array = np.random.default_rng(11111).uniform(-0.5, 0.5, shape)
    for start in ((0, 0, 0), (240, 280, 300)):
        m = from_sofima(array, stride, start)
        np.testing.assert_allclose(from_absolute(m.absolute, m.lattice).u, m.u, atol=1e-9)
        back, first = to_sofima(m)
        np.testing.assert_array_equal(back, array)
        assert first == start[: shape[0]]
    x = m.absolute[-1]
    np.testing.assert_allclose(x[..., 3], array[0][..., 3] + (240 + 3) * stride)


def test_fill_missing():
    y, x = np.mgrid[:50, :50]
    array = np.stack([np.sin(x / 25), np.cos(y / 25)])[:, None]
    gap = array.copy()
    gap[:, 0, 24:28, 38:42] = np.nan
    filled = fill_missing(from_sofima(gap, 1))
    np.testing.assert_allclose(to_sofima(filled)[0], array, atol=0.015)
    gap = array.copy()
    gap[:, 0, -1] = np.nan
    assert np.isnan(fill_missing(from_sofima(gap, 1)).u[:, 0, -1]).all()
    for outside in ("nearest", "smooth"):
        filled = to_sofima(fill_missing(from_sofima(gap, 1), outside=outside))[0]
        np.testing.assert_allclose(filled[1, 0, -1], array[1, 0, -1], atol=0.15)
    gap[...] = np.nan
    assert (fill_missing(from_sofima(gap, 1), empty=0.0).u == 0).all()


def test_fill_missing_with_one_empty_section():
    """SOFIMA raises ValueError when it extrapolates a stack with an all-NaN section."""
    array = np.zeros((2, 2, 8, 8))
    array[:, 0] = np.nan
    array[:, 1, 3] = np.nan
    filled = fill_missing(from_sofima(array, 1), outside="nearest")
    np.testing.assert_array_equal(filled.known.all(axis=(1, 2)), [False, True])


def test_outer_box():
    array = np.zeros((2, 1, 50, 50))
    array[0, 0, 0, 49] = 4
    array[0, 0, 1, 49] = 8
    array[0, 0, 2, 0] = -3
    array[1, 0, 49, 10] = 1
    array[1, 0, 0, 1] = -2
    m = from_sofima(array, 5, START)
    lattice = outer_lattice(m)
    assert starts(lattice) == (199, 99)
    assert lattice.shape == (52, 53)
    assert outer_box(m) == Box((998, 497), (1247, 754))


def test_inner_box():
    array = np.zeros((2, 1, 50, 50))
    array[1] = -30
    array[1, :, 0] = -40
    array[1, :, -1] = -25
    m = from_sofima(array, 10, START)
    lattice = inner_lattice(m)
    assert starts(lattice) == (196, 100)
    assert lattice.shape == (51, 50)
    assert inner_box(m) == Box((1960, 1000), (2466, 1491))
    array = np.zeros((2, 1, 50, 50))
    array[0, :, :, 0] = -9
    array[0, :, :, -1] = 9
    lattice = inner_lattice(from_sofima(array, 10, START))
    assert starts(lattice) == (200, 100)
    assert lattice.shape == (50, 50)


def test_inner_box_3d():
    array = np.zeros((3, 50, 50, 50))
    array[2] = -30
    array[2, 0] = -40
    array[2, -1] = -25
    lattice = inner_lattice(from_sofima(array, 10, (100, 200, 200)))
    assert starts(lattice) == (196, 200, 100)
    assert lattice.shape == (51, 50, 50)


def test_boxes_of_nothing():
    m = from_sofima(np.full((2, 1, 4, 4), np.nan), 10)
    for box in (outer_box, inner_box):
        with pytest.raises(ValueError, match=r"no (known )?node"):
            box(m)


@pytest.mark.parametrize("shape", [(2, 1, 50, 50), (3, 5, 50, 50)])
def test_inverse_of_a_shear_is_its_negative(shape):
    array = np.zeros(shape)
    array[1] = np.sin(np.arange(50) / 25) * 20
    m = from_sofima(array, 40, START)
    back = to_sofima(invert(m))[0]
    inner = np.s_[:, :, 1:, 1:]  # in z too there is nothing to cut, unlike SOFIMA's 3-D test
    np.testing.assert_allclose(back[inner], -array[inner], atol=1e-5)


def test_resample():
    y, x = np.mgrid[:50, :50]
    array = np.stack([np.sin(x / 25), np.cos(y / 25)])[:, None] * 20
    y, x = np.mgrid[:100, :100]
    expected = np.stack([np.sin(x / 50), np.cos(y / 50)])[:, None] * 20
    finer = Lattice((2 * 203 * 20.0, 2 * 102 * 20.0), (20.0, 20.0), (94, 96))
    for method, atol in (("linear", 0.015), ("cubic", 1e-4)):
        got = to_sofima(resample(from_sofima(array, 40, START), finer, method))[0]
        np.testing.assert_allclose(got[:, :, :-1, :-1], expected[:, :, 6:-1, 4:-1], atol=atol)


def test_compose_with_the_inverse():
    y, x = np.mgrid[:50, :50]
    array = np.stack([np.sin(x / 25), np.cos(y / 25)])[:, None]
    m = from_sofima(array, 5, START)
    got = compose(m, invert(m)).u[:, :, 1:-2, 1:-2]
    np.testing.assert_allclose(got, 0, atol=1.5e-3)


def test_compose_literal_values():
    flow = np.zeros((2, 1, 50, 50))
    flow[0, 0, :, 10:25] = -5
    flow[0, 0, :, 25:40] = 65
    flow[:, 0, :, 4] = np.nan
    second = np.zeros((2, 1, 60, 60))
    first = from_sofima(flow, 40, (42, 58, 64))
    got = compose(first, from_sofima(second, 40, (40, 50, 64)))
    np.testing.assert_array_equal(to_sofima(got)[0], flow)
    second[0, :, :, 7:] = -10
    got = compose(first, from_sofima(second, 40, (40, 50, 64)))
    expected = flow.copy()
    expected[0, 0, :, 5:10] = -10
    expected[0, 0, :, 10:25] = -15
    expected[0, 0, :, 25:40] = 55
    expected[0, 0, :, 40:] = -10
    np.testing.assert_array_equal(to_sofima(got)[0], expected)


def test_compose_with_a_map_that_starts_later():
    first = from_sofima(np.zeros((2, 1, 10, 10)), 40, (0, 0, 0))
    second = from_sofima(np.broadcast_to(np.arange(6.0), (2, 1, 6, 6)).copy(), 40, (3, 2, 0))
    expected = np.full((2, 1, 10, 10), np.nan)
    expected[:, :, 2:8, 3:9] = np.arange(6)
    np.testing.assert_array_equal(to_sofima(compose(first, second))[0], expected)


def test_mask_irregular():
    array = np.zeros((2, 1, 50, 50))
    array[0, 0, 40, 10] = 10
    m = from_sofima(array, 40).section(0)
    expected = np.zeros((50, 50), bool)
    expected[39:42, 8:11] = True
    np.testing.assert_array_equal(irregular(m, 0.25, 1.1), expected)
    np.testing.assert_array_equal(~mask_irregular(m, 0.25, 1.1).known, expected)


def test_warp_points():
    array = np.zeros((2, 10, 3, 3))
    array[0, 0] = 10
    array[1, 1] = 20
    m = from_sofima(array, 10, (10, 20, 0))
    got = warp_points(m, np.array([[201, 101], [205, 105]]), np.array([0, 1]))
    np.testing.assert_array_equal(got, [[201, 111], [225, 105]])


def test_what_sofima_has_not():
    with pytest.raises(ValueError, match="2 or 3 components"):
        from_sofima(np.zeros((4, 1, 3, 3)), 1)
    with pytest.raises(ValueError, match="strides"):
        from_sofima(np.zeros((2, 1, 3, 3)), (1, 1, 1))


def test_arrays_of_whole_numbers_become_maps():
    m = from_sofima.__wrapped__(np.full((2, 1, 8, 8), 3, np.int64), np.int64(10))
    assert (m.u.dtype, m.stride) == (np.float64, (10.0, 10.0))
    half = from_sofima(np.full((2, 1, 8, 8), 0.5), 10)
    assert compose(m, half).u[0, 0, 2, 2] == 3.5


def test_offsets_of_other_types_are_refused():
    with pytest.raises(ValueError, match="float32 or float64"):
        CoordinateMap(np.ones((2, 4, 4), np.float16), (0.0, 0.0), (1.0, 1.0))


def test_affine_maps_of_either_form():
    """SOFIMA's `make_affine_map` takes the rows alone."""
    matrix = np.array([[1.1, 0.2, 3.0], [-0.1, 0.9, 5.0]])
    lattice = Lattice((0.0, 10.0), (5.0, 4.0), (6, 7))
    whole = from_affine(np.vstack([matrix, [0, 0, 1]]), lattice)
    np.testing.assert_array_equal(from_affine(matrix, lattice).u, whole.u)
    y, x = lattice.nodes()
    np.testing.assert_allclose(whole.absolute[0], 1.1 * y + 0.2 * x + 3)
    with pytest.raises(ValueError, match="does not act"):
        from_affine(np.eye(4), lattice)
