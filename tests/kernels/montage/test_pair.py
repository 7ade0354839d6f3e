import warnings

import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.montage.pair import Strip, coarse_peak, measure_link, strip_boxes


def texture(shape, seed):
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    wide = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    return 120 + 20 * (fine / fine.std() + wide / wide.std())


def moved(image, matrix, shape, at):
    """`image` on a grid of `shape`: voxel p shows `image(matrix @ (p - centre) + centre + at)`."""
    centre = (np.array(shape) - 1) / 2
    offset = centre + at - matrix @ centre
    return ndimage.affine_transform(image, matrix, offset, output_shape=shape, order=5)


def tile_pair(seed, truth, shape=(160, 160), noise=3.0, matrix=None):
    """Two noisy tiles of one canvas: the second lies at `truth`, turned by `matrix`."""
    rng = np.random.default_rng(seed)
    canvas = texture(np.array(shape) * 2 + 20, seed)
    home = 10 + np.maximum(0, -np.asarray(truth, float))
    square = np.eye(len(shape)) if matrix is None else matrix
    first = moved(canvas, np.eye(len(shape)), shape, home)
    second = moved(canvas, square, shape, home + truth)
    return [np.clip(t + noise * rng.normal(size=shape), 0, 255) for t in (first, second)]


def link_of(tiles, offset, search, *, blocks=1, masks=(None, None)):
    boxes = strip_boxes(*(t.shape for t in tiles), offset=offset, search=search)
    strips = [
        Strip(tile[box.slices], box.start, None if mask is None else mask[box.slices])
        for tile, box, mask in zip(tiles, boxes, masks, strict=True)
    ]
    return measure_link(*strips, offset=offset, search=search, blocks=blocks)


def test_strip_boxes_hold_every_overlap_in_the_window():
    a, b = strip_boxes((100, 100), (100, 80), offset=(3.4, 90), search=(5, 6))
    assert a == Box((0, 84), (100, 100))
    assert b == Box((0, 0), (100, 16))
    far, _ = strip_boxes((100, 100), (100, 100), offset=(0, 200), search=(5, 5))
    assert not far


@pytest.mark.parametrize(
    ("offset", "delta"),
    [((0, 125), (6.3, -4.7)), ((125, 0), (-7.45, 5.2)), ((-3.3, -125), (2.5, 7.9))],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_finds_the_true_offset(offset, delta, dtype):
    truth = np.add(offset, delta)
    tiles = [t.astype(dtype) for t in tile_pair(1, truth)]
    link = link_of(tiles, offset, (10, 10))
    assert not link.reason
    np.testing.assert_allclose(link.fixed_points - link.moving_points, [truth], atol=0.03)
    assert ((link.fixed_points >= 0) & (link.fixed_points < 160)).all()
    assert ((link.moving_points >= 0) & (link.moving_points < 160)).all()
    assert link.score > 8
    assert link.ncc > 0.9


def test_three_dimensions():
    truth = np.array([1.3, 2.6, 30.4])
    tiles = tile_pair(2, truth, shape=(20, 48, 48))
    link = link_of(tiles, (0, 0, 32), (3, 4, 4))
    np.testing.assert_allclose(link.fixed_points - link.moving_points, [truth], atol=0.05)
    assert link.information.shape == (1, 3, 3)


@pytest.mark.parametrize("degrees", [0.3, -0.6])
def test_blocks_tell_the_rotation(degrees):
    shape, truth = (320, 320), np.array([4.0, 277.6])
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    tiles = tile_pair(3, truth, shape=shape, matrix=matrix)
    link = link_of(tiles, (0, 280), (12, 12), blocks=4)
    assert len(link.fixed_points) == 4
    centre = (np.array(shape) - 1) / 2
    expected = (link.moving_points - centre) @ matrix.T + centre + truth
    np.testing.assert_allclose(link.fixed_points, expected, atol=0.15)


def test_masked_and_nan_voxels_do_not_count():
    truth = np.array([2.4, 122.7])
    clean, second = tile_pair(4, truth)
    dirty = clean.copy()
    dirty[40:70, 130:150] = 1e6
    dirty[100:110, 125:160] = np.nan
    mask = np.ones(dirty.shape, bool)
    mask[40:70, 130:150] = False
    link = link_of((dirty, second), (0, 125), (8, 8), masks=(mask, None))
    np.testing.assert_allclose(link.fixed_points - link.moving_points, [truth], atol=0.03)
    whole = link_of((clean, second), (0, 125), (8, 8))
    assert link.overlap < whole.overlap
    assert np.linalg.det(link.information[0]) < np.linalg.det(whole.information[0])


def bad_strips():
    noise = np.random.default_rng(5).normal(100, 9, (64, 24))
    yield "contrast", np.full((64, 24), 7, np.uint8), noise
    yield "valid", np.full((64, 24), np.nan), noise
    yield "valid", np.full((64, 24), np.inf), noise
    yield "thin", noise[:, :3], noise
    yield "thin", noise[:0], noise
    one = np.full((64, 24), np.nan)
    one[5, 5] = 1
    yield "", one, noise
    yield "contrast", np.full((64, 24), 1e30), np.full((64, 24), 1e-30)
    yield "", noise * 1e30, noise


@pytest.mark.parametrize(("reason", "first", "second"), bad_strips())
@pytest.mark.parametrize("swap", [False, True])
def test_bad_strips_give_a_reason_not_an_error(reason, first, second, swap):
    a, b = (second, first) if swap else (first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        link = measure_link(
            Strip(a, (0, 0)), Strip(b, (0, 0)), offset=(0, 0), search=(4, 4), blocks=2
        )
    if reason:
        assert reason in link.reason
        assert len(link.fixed_points) == len(link.information) == 0
    assert np.isfinite(link.score)


def test_empty_mask_gives_a_reason():
    noise = np.random.default_rng(6).normal(size=(40, 40))
    masked = Strip(noise, (0, 0), np.zeros((40, 40), bool))
    link = measure_link(masked, Strip(noise, (0, 0)), offset=(0, 0), search=(4, 4), blocks=1)
    assert "valid" in link.reason


def test_score_is_that_of_the_coarse_peak_and_small_without_a_match():
    a, b = (texture((200, 50), seed) for seed in (7, 8))
    peak = coarse_peak(Strip(a, (0, 0)), Strip(b, (0, 0)), offset=(0, 0), search=(10, 10))
    link = measure_link(
        Strip(a, (0, 0)), Strip(b, (0, 0)), offset=(0, 0), search=(10, 10), blocks=1
    )
    assert peak.score == link.score < 6


def test_does_not_depend_on_what_was_measured_before():
    tiles = tile_pair(9, np.array([1.5, 124.5]))
    once = link_of(tiles, (0, 125), (8, 8))
    link_of(tile_pair(10, np.array([0.0, 120.0])), (0, 125), (8, 8))
    again = link_of(tiles, (0, 125), (8, 8))
    assert once.fixed_points.tobytes() == again.fixed_points.tobytes()
    assert once.information.tobytes() == again.information.tobytes()


def test_wrong_calls_are_refused():
    strip = Strip(np.zeros((20, 20)), (0, 0))
    with pytest.raises(ValueError, match="ranks"):
        measure_link(strip, strip, offset=(0, 0, 0), search=(2, 2), blocks=1)
    with pytest.raises(ValueError, match="block"):
        measure_link(strip, strip, offset=(0, 0), search=(2, 2), blocks=0)
