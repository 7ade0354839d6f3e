"""One tile on a box of output voxels, against scipy's interpolation."""

import numpy as np
import pytest
from phantoms import Waves, shifted
from scipy import ndimage

from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.fuse.warp import warp, warp_into
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading

ORDER = {"nearest": 0, "linear": 1, "cubic": 3}


def view_of(pixels, matrix, **more):
    return TileView(pixels, Box.of_shape(pixels.shape), pixels.shape, matrix, **more)


def by_scipy(pixels, matrix, box, order):
    """The tile at every voxel of the box, borders repeated, and where it lies inside."""
    points = np.stack(np.meshgrid(
        *(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)), indexing="ij"
    )).reshape(box.ndim, -1)  # fmt: skip
    columns = np.linalg.inv(matrix) @ np.vstack([points, np.ones(points.shape[1])])
    source = (columns[:-1] / columns[-1]).reshape(box.ndim, *box.shape)
    values = ndimage.map_coordinates(pixels, source, order=order, mode="nearest")
    limits = np.array(pixels.shape).reshape(-1, *[1] * box.ndim)
    return values, ((source >= -0.5) & (source <= limits - 0.5)).all(axis=0)


def tilted(ndim, seed, *, mix_z=True, perspective=0.0):
    rng = np.random.default_rng(seed)
    matrix = shifted(*rng.uniform(-3, 3, ndim))
    matrix[:ndim, :ndim] += rng.uniform(-0.06, 0.06, (ndim, ndim))
    if ndim == 3 and not mix_z:
        matrix[0, 1:3] = matrix[1:3, 0] = 0
    matrix[ndim, :ndim] = rng.uniform(-perspective, perspective, ndim)
    return matrix


def compare(pixels, matrix, box, interpolation, tolerance):
    warped = warp(view_of(pixels, matrix), box, interpolation)
    values, inside = by_scipy(pixels, matrix, warped.box, ORDER[interpolation])
    valid = np.ones(warped.box.shape, bool) if warped.valid is None else warped.valid
    edge = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside, border_value=1)
    np.testing.assert_array_equal(valid[~edge], inside[~edge])
    assert np.abs(warped.values - values)[inside & valid].max() <= tolerance
    whole = by_scipy(pixels, matrix, box, 0)[1]
    assert whole.sum() == by_scipy(pixels, matrix, warped.box, 0)[1].sum()  # nothing was cut off


@pytest.mark.parametrize("seed", range(3))
def test_affine_2d(seed):
    pixels = Waves.random(seed).image((40, 50)).astype(np.float32)
    compare(pixels, tilted(2, seed), Box((-8, -8), (52, 62)), "linear", 0.05)


@pytest.mark.parametrize("seed", range(3))
def test_cubic_is_the_spline(seed):
    pixels = Waves.random(seed).image((40, 50)).astype(np.float32)
    compare(pixels, tilted(2, seed), Box((-8, -8), (52, 62)), "cubic", 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_perspective_2d(seed):
    pixels = Waves.random(seed).image((40, 50)).astype(np.float32)
    matrix = tilted(2, seed, perspective=8e-4)
    compare(pixels, matrix, Box((-10, -10), (60, 70)), "linear", 0.05)


def test_perspective_far_from_the_origin():
    """A mosaic is wide: float32 coordinates of the output would be off by a hundredth there."""
    pixels = Waves.random(0).image((40, 50)).astype(np.float32)
    matrix = shifted(90_000, 120_000) @ tilted(2, 4, perspective=5e-4)
    compare(pixels, matrix, Box((89_990, 119_990), (90_060, 120_070)), "linear", 0.2)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("kind", ["shift", "in-plane", "mixed", "perspective"])
def test_3d(kind, interpolation):
    pixels = Waves.random(0, 3).image((12, 30, 34)).astype(np.float32)
    matrix = {
        "shift": shifted(0.3, -1.6, 2.2),
        "in-plane": tilted(3, 1, mix_z=False),
        "mixed": tilted(3, 2),
        "perspective": tilted(3, 3, perspective=5e-4),
    }[kind]
    box = Box((-4, -6, -6), (18, 38, 42))
    tolerance = {"nearest": 300.0, "linear": 0.2, "cubic": 0.5}[interpolation]
    compare(pixels, matrix, box, interpolation, tolerance)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos"])
def test_better_interpolation_is_closer_to_the_truth(interpolation):
    truth = Waves.random(2, wavelengths=(9, 60))
    matrix = tilted(2, 5)
    pixels = truth.image((80, 80), matrix).astype(np.float32)
    box = Box((20, 20), (55, 55))
    warped = warp(view_of(pixels, matrix), box, interpolation)
    error = np.abs(warped.values - truth.image(box.shape, shifted(*box.start))).max()
    assert error < {"linear": 40, "cubic": 5, "lanczos": 5}[interpolation]


def test_a_window_is_enough():
    """What `source_box` asks for is all that the box needs, to the bit."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (200, 220)).astype(np.uint16)
    matrix = tilted(2, 7)
    box = Box((60, 70), (90, 110))
    whole = warp(view_of(pixels, matrix), box, "lanczos")
    window = source_box(np.linalg.inv(matrix), pixels.shape, box, 5)
    part = TileView(pixels[window.slices], window, pixels.shape, matrix)
    np.testing.assert_array_equal(warp(part, box, "lanczos").values, whole.values)


def test_a_mask_is_warped_with_the_tile():
    pixels = np.ones((40, 40), np.uint16)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:20] = True
    warped = warp(view_of(pixels, shifted(3, 4), mask=mask), Box.of_shape((60, 60)), "linear")
    valid = np.zeros((60, 60), bool)
    valid[warped.box.slices] = warped.valid
    expected = np.zeros((60, 60), bool)
    expected[13:33, 9:24] = True
    np.testing.assert_array_equal(valid, expected)
    half = warp(view_of(pixels, shifted(3.5, 4), mask=mask), Box.of_shape((60, 60)), "linear")
    assert half.valid.sum() == 19 * 15  # a voxel half of which is masked is left out


def test_tiles_that_do_not_meet_the_box():
    view = view_of(np.ones((10, 10), np.uint8), shifted(100, 0))
    assert warp(view, Box.of_shape((50, 50))) is None


@pytest.mark.parametrize(("ndim", "name"), [(2, "quintic"), (3, "lanczos")])
def test_unknown_interpolations(ndim, name):
    view = view_of(np.ones((8,) * ndim, np.uint8), shifted(*[0.0] * ndim))
    with pytest.raises(ValueError, match=f"{name}.*{ndim}-D"):
        warp(view, Box.of_shape((8,) * ndim), name)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "lanczos"])
def test_drawn_in_place_it_is_the_same_to_the_bit(interpolation):
    pixels = Waves.random(1).image((90, 120)).astype(np.uint16)
    view = view_of(pixels, shifted(3.3, -2.6))
    target, whole = Box((20, 15), (70, 95)), np.zeros((200, 200), np.uint16)
    assert warp_into(view, target, interpolation, whole[20:70, 15:95])
    expected = warp(view, target, interpolation, exact=True).values
    np.testing.assert_array_equal(whole[20:70, 15:95], expected)
    whole[20:70, 15:95] = 0
    assert not whole.any()


@pytest.mark.parametrize("case", ["reaches beyond", "mask", "shading", "dtype", "spline", "volume"])
def test_what_needs_more_than_drawing_is_not_drawn_in_place(case):
    pixels = Waves.random(1).image((90, 120)).astype(np.uint16)
    more = {
        "mask": {"mask": np.ones(pixels.shape, bool)},
        "shading": {"shading": Shading(gain=1.5)},
    }
    view = view_of(pixels, shifted(3.3, -2.6), **more.get(case, {}))
    target = Box((20, 15), (70, 130 if case == "reaches beyond" else 95))
    if case == "volume":
        view = view_of(np.ones((9, 9, 9), np.uint16), np.eye(4))
        target = Box((2, 2, 2), (4, 5, 6))
    out = np.full(target.shape, 7, np.float32 if case == "dtype" else np.uint16)
    assert not warp_into(view, target, "cubic" if case == "spline" else "linear", out)
    assert (out == 7).all()
