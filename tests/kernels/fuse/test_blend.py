"""Every way of blending against a loop over voxels and tiles that follows its definition."""

import numpy as np
import pytest
from phantoms import Waves, shifted
from scipy import ndimage

from warpbeam.kernels.fuse.blend import BLENDINGS, coverage
from warpbeam.kernels.fuse.render import render
from warpbeam.kernels.fuse.view import TileView
from warpbeam.kernels.fuse.warp import warp
from warpbeam.kernels.geometry.box import Box

BOX = Box((-3, -3), (37, 39))


def view_of(pixels, matrix, **more):
    return TileView(pixels, Box.of_shape(pixels.shape), pixels.shape, matrix, **more)


def scene(*, turned):
    """Three overlapping tiles of unlike content; one masked in part."""
    rng = np.random.default_rng(5)
    views = []
    for k, at in enumerate([(0.0, 0.0), (4.0, 13.0), (13.0, 5.0)]):
        matrix = shifted(*at)
        if turned:
            matrix[:2, :2] += rng.uniform(-0.1, 0.1, (2, 2))
            matrix[:2, 2] += rng.uniform(-0.5, 0.5, 2)
        pixels = Waves.random(k).image((20, 22)).astype(np.float32)
        mask = np.ones((20, 22), bool)
        if k == 2:
            mask[:6, :6] = False
        views.append(view_of(pixels, matrix, mask=mask if k == 2 else None))
    return views


def sample(image, point):
    """Bilinear, borders repeated."""
    value = 0.0
    low = np.floor(point).astype(int)
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.prod([1 - abs(p - a - s) for p, a, s in zip(point, low, step, strict=True)])
        at = tuple(np.clip(low + step, 0, np.array(image.shape) - 1))
        value += share * float(image[at])
    return value


def border_distance(point, shape):
    """Along each axis, from the last voxel inwards."""
    return [min(p, n - 1 - p) for p, n in zip(point, shape, strict=True)]


def weight_of(mode, point, shape):
    if mode == "mean":
        return 1.0
    distance = [d + 0.5 for d in border_distance(point, shape)]
    if mode == "linear":
        return np.prod(distance)
    return np.prod([np.sin(np.pi * d / n) ** 2 for d, n in zip(distance, shape, strict=True)])


def within_margin(mode, index, n, margin):
    """The weight along one axis of a voxel of an upright tile."""
    inside = n - 2 * margin

    def inner(k):
        distance = min(k, inside - 1 - k) + 0.5
        smooth = np.sin(np.pi * distance / inside) ** 2
        return {"mean": 1.0, "linear": distance, "cosine": smooth}[mode]

    from_end = min(index, n - 1 - index)
    if from_end < margin:
        return 1e-3 * inner(0) * (from_end + 1) / (margin + 1)
    return inner(index - margin)


def tiles_on(views, voxel):
    """The tiles that cover a voxel: index, source point, value."""
    for k, view in enumerate(views):
        point = (np.linalg.inv(view.matrix) @ [*voxel, 1])[:2]
        inside = all(-0.5 <= p <= n - 0.5 for p, n in zip(point, view.shape, strict=True))
        unmasked = view.mask is None or sample(view.mask.astype(float), point) > 0.999
        if inside and unmasked:
            yield k, point, sample(view.pixels, point)


def by_loop(views, mode):
    out, count = np.zeros(BOX.shape), np.zeros(BOX.shape, int)
    near_border = np.zeros(BOX.shape, bool)
    for index in np.ndindex(BOX.shape):
        voxel = np.add(index, BOX.start)
        found = list(tiles_on(views, voxel))
        count[index] = len(found)
        for view in views:
            point = (np.linalg.inv(view.matrix) @ [*voxel, 1])[:2]
            if -1.0 < min(border_distance(point, view.shape)) < 0.6:
                near_border[index] = True
        if not found:
            continue
        if mode == "max":
            out[index] = max(value for _, _, value in found)
        elif mode == "closest":
            middle = [
                sum(((p - (n - 1) / 2) / n) ** 2 for p, n in zip(pt, views[k].shape, strict=True))
                for k, pt, _ in found
            ]
            out[index] = found[int(np.argmin(middle))][2]
        else:
            weights = [weight_of(mode, pt, views[k].shape) for k, pt, _ in found]
            values = [value for _, _, value in found]
            out[index] = np.average(values, weights=weights)
    return out, count, near_border


@pytest.mark.parametrize("mode", ["linear", "cosine", "mean"])
def test_a_margin_counts_where_nothing_else_lies(mode):
    views, margin = scene(turned=False), 3
    fused = render(
        BOX, views, mode=mode, interpolation="linear", dtype=np.dtype(np.float32), margin=margin
    )
    for index in np.ndindex(BOX.shape):
        found = list(tiles_on(views, np.add(index, BOX.start)))
        weights = [
            np.prod([within_margin(mode, round(p), n, margin)
                     for p, n in zip(point, views[k].shape, strict=True)])
            for k, point, _ in found
        ]  # fmt: skip
        expected = np.average([v for *_, v in found], weights=weights) if found else 0
        assert fused[index] == pytest.approx(expected, abs=1e-3), index


@pytest.mark.parametrize("mode", ["linear", "cosine"])
@pytest.mark.parametrize("margin", [0, 50])
def test_a_tile_counts_for_nothing_beside_its_border(mode, margin):
    """Where only the ends, or the margins, of two dark tiles lie beside a bright one."""
    n, over = 2000, 10
    places = [(0, 0), (n - over, n - 5), (-5, n - over)]
    views = [view_of(np.full((n, n), grey, np.float32), shifted(*map(float, at)))
             for grey, at in zip((1000, 100, 100), places, strict=True)]  # fmt: skip
    column = Box((0, n), (n + over, n + 1))  # the first that the bright tile does not reach
    fused = render(
        column, views, mode=mode, interpolation="linear", dtype=np.dtype(np.float32), margin=margin
    )
    np.testing.assert_allclose(fused, 100, atol=1)  # a thousandth of 900


def test_a_margin_may_be_larger_than_a_tile():
    views = scene(turned=True)
    outcome = [
        render(BOX, views, mode=mode, interpolation="linear", dtype=np.dtype(np.float32), margin=m)
        for mode in ("linear", "max")
        for m in (0, 4000)
    ]
    np.testing.assert_array_equal(outcome[0] > 0, outcome[1] > 0)
    np.testing.assert_array_equal(outcome[2], outcome[3])  # `max` knows no weights


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mode", [m for m in BLENDINGS if m != "multiband"])
def test_modes_against_a_loop(mode, turned):
    views = scene(turned=turned)
    count = np.zeros(BOX.shape, np.uint8)
    fused = render(
        BOX, views, mode=mode, interpolation="linear", dtype=np.dtype(np.float32), count=count
    )
    expected, tiles, near_border = by_loop(views, mode)
    np.testing.assert_array_equal(count[~near_border], tiles[~near_border])
    if not turned:
        np.testing.assert_array_equal(count, tiles)
    # Within half a voxel of a border a turned tile's tiny weights are a matter of definition.
    known = ~near_border if turned else np.ones_like(near_border)
    assert known.mean() > 0.5
    close = np.abs(fused - expected)[known]
    # The cosine is drawn from its samples on the tile, which are 1 px apart.
    assert np.quantile(close, 0.99) < (2.0 if mode == "cosine" else 0.5)
    assert close.max() < (8.0 if mode in ("linear", "cosine") else 0.5)


def test_multiband_is_sharp_inside_and_smooth_across():
    """Fine detail of the nearer tile, coarse brightness shared: against its definition."""
    fine = np.random.default_rng(0).normal(0, 20, (120, 150))
    fine -= ndimage.gaussian_filter(fine, 3)
    left, right = (1000 + fine[:, :100]), (1300 + fine[:, 50:])
    views = [
        view_of(left.astype(np.float32), shifted(0, 0)),
        view_of(right.astype(np.float32), shifted(0, 50)),
    ]
    box = Box.of_shape((120, 150))
    fused = render(box, views, mode="multiband", interpolation="linear", dtype=np.dtype(np.float32))
    rows = slice(20, 100)
    profile = ndimage.gaussian_filter(fused, 3)[rows].mean(axis=0)
    assert abs(profile[20] - 1000) < 3
    assert abs(profile[130] - 1300) < 3
    assert np.abs(np.diff(profile)).max() < 300 / 10  # no step, a ramp of several blur widths
    detail = (fused - ndimage.gaussian_filter(fused, 3))[rows, 10:140]
    expected = (fine - ndimage.gaussian_filter(fine, 3))[rows, 10:140]
    assert np.corrcoef(detail.ravel(), expected.ravel())[0, 1] > 0.98  # not averaged away
    assert np.std(detail) > 0.95 * np.std(expected)


@pytest.mark.parametrize("mode", BLENDINGS)
def test_tiles_that_agree_are_left_as_they_are(mode):
    truth = Waves.random(0)
    views = [
        view_of(truth.image((100, 120), shifted(*at)).astype(np.float32), shifted(*at))
        for at in [(0.0, 0.0), (10.0, 60.0), (50.0, 7.0)]
    ]
    box = Box.of_shape((120, 170))
    count = np.zeros(box.shape, np.uint8)
    fused = render(
        box, views, mode=mode, interpolation="linear", dtype=np.dtype(np.float32), count=count
    )
    error = np.abs(fused - truth.image(box.shape))[count > 0]
    # Of a contrast of +-500; blurs end at a tile's border, and see less than the truth there.
    assert error.max() < (40 if mode == "multiband" else 0.01)
    assert np.median(error) < 0.5


def test_coverage_stops_at_255():
    view = view_of(np.zeros((4, 4), np.uint8), shifted(0, 0))
    box = Box.of_shape((5, 5))
    count = coverage(box, [warp(view, box)] * 300)
    np.testing.assert_array_equal(count, np.pad(np.full((4, 4), 255), (0, 1)))
