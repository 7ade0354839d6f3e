"""Fused voxels: faithful to the truth, unbiased, and the same however they are cut out."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import Waves, shifted

from warpbeam.kernels.fuse.blend import BLENDINGS
from warpbeam.kernels.fuse.render import covered_samples, needed, render
from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.fuse.warp import reach
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.correction import Shading

AVERAGING = ("mean", "linear", "cosine")
FLOAT, UINT16 = np.dtype(np.float32), np.dtype(np.uint16)


def view_of(pixels, matrix, **more):
    return TileView(pixels, Box.of_shape(pixels.shape), pixels.shape, matrix, **more)


def turned(degrees, scale, offset):
    angle = np.deg2rad(degrees)
    matrix = shifted(*offset)
    matrix[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    return matrix


def affine_mosaic(truth, side=160, step=120, degrees=0.3, dtype=np.float32):
    """2 x 2 tiles, each turned, scaled and shifted by a fraction of a pixel."""
    rng = np.random.default_rng(3)
    views = []
    for y in (0, step):
        for x in (0, step):
            matrix = turned(
                rng.uniform(-degrees, degrees), 1 + rng.uniform(-2e-3, 2e-3),
                np.array([y, x]) + rng.uniform(-2, 2, 2),
            )  # fmt: skip
            views.append(view_of(truth.image((side, side), matrix).astype(dtype), matrix))
    return views


def block_shifts(found, truth, box, side=40):
    """Per block of voxels the displacement that explains `found - truth` best (least squares)."""
    points = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)),
                    indexing="ij"), axis=-1,
    ).astype(float)  # fmt: skip
    angles = points @ truth.vectors.T + truth.phases
    error = found - truth.mean - np.cos(angles) @ truth.amplitudes
    slope = -np.sin(angles) * truth.amplitudes @ truth.vectors
    shifts = []
    for y in range(0, box.shape[0] - side + 1, side):
        for x in range(0, box.shape[1] - side + 1, side):
            block = slice(y, y + side), slice(x, x + side)
            system = np.column_stack([slope[block].reshape(-1, 2), np.ones(side * side)])
            shifts.append(np.linalg.lstsq(system, -error[block].ravel(), rcond=None)[0][:2])
    return np.array(shifts)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos"])
@pytest.mark.parametrize("mode", BLENDINGS)
def test_affine_tiles_are_drawn_where_they_belong(mode, interpolation):
    truth = Waves.random(1, wavelengths=(16, 60))
    box = Box((5, 5), (245, 245))
    fused = render(
        box, affine_mosaic(truth), mode=mode, interpolation=interpolation, dtype=FLOAT
    )  # fmt: skip
    assert np.abs(block_shifts(fused, truth, box)).max() <= 0.02


def test_the_measure_of_displacement_can_fail():
    truth = Waves.random(1, wavelengths=(14, 60))
    box = Box.of_shape((80, 80))
    moved = truth.image((80, 80), shifted(-0.05, 0.1))
    found = block_shifts(moved, truth, box)
    np.testing.assert_allclose(found, [[0.05, -0.1]] * len(found), atol=0.01)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("mode", BLENDINGS)
def test_a_constant_stays_constant(mode, interpolation):
    flat = dataclasses.replace(Waves.random(0), amplitudes=np.zeros(40))
    views = affine_mosaic(flat, side=60, step=40, degrees=5, dtype=np.uint16)
    count = np.zeros((120, 120), np.uint8)
    fused = render(
        Box((-10, -10), (110, 110)), views, mode=mode, interpolation=interpolation,
        dtype=UINT16, count=count,
    )  # fmt: skip
    assert set(np.unique(count)) >= {0, 1, 2}
    assert (fused[count > 0] == 1000).all()
    assert (fused[count == 0] == 0).all()


@pytest.mark.parametrize("mode", BLENDINGS)
def test_noise_in_overlaps_is_not_biased(mode):
    rng = np.random.default_rng(0)
    side, sigma = 300, 20.0
    views = [
        view_of((100 + sigma * rng.standard_normal((side, side))).astype(np.float32), shifted(0, x))
        for x in (0.0, 0.0)
    ]
    fused = render(
        Box.of_shape((side, side)), views, mode=mode, interpolation="linear", dtype=FLOAT
    )
    tolerance = 4 * sigma / side
    if mode == "max":  # known: the mean of the larger of two normal variables
        assert abs(fused.mean() - 100 - sigma / np.sqrt(np.pi)) < tolerance
    else:
        assert abs(fused.mean() - 100) < tolerance
    if mode in AVERAGING:
        assert fused.std() < 0.75 * sigma


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("mode", BLENDINGS)
def test_whole_pixel_shifts_return_the_pixels(mode, interpolation):
    pixels = np.random.default_rng(0).integers(0, 65536, (50, 70)).astype(np.uint16)
    count = np.zeros((60, 80), np.uint8)
    fused = render(
        Box((-5, -5), (55, 75)), [view_of(pixels, shifted(3, -2))], mode=mode,
        interpolation=interpolation, dtype=UINT16, count=count,
    )  # fmt: skip
    expected = np.zeros((60, 80), np.uint16)
    expected[8:58, 3:73] = pixels
    tolerance = 1 if mode == "multiband" else 0  # sums of bands in float32
    assert np.abs(fused.astype(int) - expected).max() <= tolerance
    assert (count > 0).sum() == pixels.size


def test_masked_voxels_do_not_show():
    one, two = np.full((40, 40), 10, np.uint8), np.full((40, 40), 200, np.uint8)
    mask = np.ones((40, 40), bool)
    mask[:, :20] = False
    count = np.zeros((40, 40), np.uint8)
    for mode in BLENDINGS:
        fused = render(
            Box.of_shape((40, 40)), [view_of(one, shifted(0, 0), mask=mask)], mode=mode,
            interpolation="linear", dtype=np.dtype(np.uint8), count=count,
        )  # fmt: skip
        np.testing.assert_array_equal(fused, 10 * mask)
        np.testing.assert_array_equal(count, mask)
        views = [view_of(one, shifted(0, 0)), view_of(two, shifted(0, 0), mask=mask)]
        both = render(
            Box.of_shape((40, 40)), views, mode=mode, interpolation="linear",
            dtype=np.dtype(np.uint8), count=count,
        )  # fmt: skip
        np.testing.assert_array_equal(both[:, :20], 10)
        np.testing.assert_array_equal(count, 1 + mask)


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        (np.uint8, [-3, 0.5, 1.5, 254.6, 300], [0, 0, 2, 255, 255]),
        (np.uint16, [-3, 2.5, 65534.9, 65535, 1e9], [0, 2, 65535, 65535, 65535]),
        (np.int16, [-4e4, -1.5, -0.4, 3.5, 4e4], [-32768, -2, 0, 4, 32767]),
        (np.uint32, [-1, 7.5, 1e6, 1e6, 1e12], [0, 8, 1000000, 1000000, 2**32 - 2**8]),
        (np.float32, [-3, 0.5, 1.5, 1e9, 0], [-3, 0.5, 1.5, 1e9, 0]),
    ],
)
def test_values_are_rounded_and_clipped(dtype, given, expected):
    row = np.repeat(np.array(given, np.float32)[None], 3, axis=0)
    fused = render(
        Box.of_shape(row.shape), [view_of(row, shifted(0, 0))], mode="linear",
        interpolation="linear", dtype=np.dtype(dtype),
    )  # fmt: skip
    np.testing.assert_array_equal(fused[1], np.array(expected, dtype))
    assert fused.dtype == dtype


def test_shading_is_removed_before_blending():
    truth = np.full((30, 30), 200, np.float32)
    flat = np.linspace(0.5, 1.5, 30, dtype=np.float32)[None].repeat(30, 0)
    raw = truth / 2 * flat + 7
    shading = Shading(flat=flat, dark=7.0, gain=2.0, offset=1.0)
    fused = render(
        Box.of_shape((30, 30)), [view_of(raw.astype(np.float32), shifted(0, 0), shading=shading)],
        mode="linear", interpolation="linear", dtype=FLOAT,
    )  # fmt: skip
    np.testing.assert_allclose(fused, 201, atol=1e-3)


def test_no_tile_gives_zeros():
    fused = render(Box.of_shape((4, 5)), [], mode="max", interpolation="linear", dtype=UINT16)
    assert fused.shape == (4, 5)
    assert not fused.any()


@st.composite
def scenes(draw, ndim):
    """A few tiles near the corner of a render cell, and two boxes, one in the other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner = np.array((1024, 1024) if ndim == 2 else (16, 64, 64))
    shape = (40, 52) if ndim == 2 else (9, 24, 28)
    views = []
    for _ in range(draw(st.integers(1, 4))):
        matrix = np.eye(ndim + 1)
        if draw(st.booleans()):
            matrix[:ndim, :ndim] += rng.uniform(-0.02, 0.02, (ndim, ndim))
        if draw(st.booleans()):
            matrix[ndim, :ndim] = rng.uniform(-1e-5, 1e-5, ndim)
        spread = np.array(shape)
        at = corner - spread / 2 + rng.uniform(-1, 1, ndim) * spread / 2
        matrix[:ndim, ndim] = at if draw(st.booleans()) else np.rint(at)
        mask = rng.random(shape) > 0.1 if draw(st.booleans()) else None
        views.append(view_of(rng.integers(0, 65536, shape).astype(np.uint16), matrix, mask=mask))
    outer = Box(tuple((corner - shape).tolist()), tuple((corner + shape).tolist()))
    start = tuple(draw(st.integers(a, b - 1)) for a, b in zip(outer.start, outer.stop, strict=True))
    stop = tuple(draw(st.integers(a + 1, b)) for a, b in zip(start, outer.stop, strict=True))
    return views, outer, Box(start, stop)


def at_hand(view, box, mode, interpolation):
    """The view as the writer of a shard has it: only the window that the shard needs."""
    around = needed(box, mode)
    window = source_box(view.inverse, view.shape, around, reach(interpolation))
    if not window:
        return None
    mask = None if view.mask is None else view.mask[window.slices]
    return TileView(view.pixels[window.slices], window, view.shape, view.matrix, mask)


def assert_cut_out(scene, mode, interpolation, dtype):
    views, outer, inner = scene
    how = {"mode": mode, "interpolation": interpolation, "dtype": dtype}
    all_count, count = np.zeros(outer.shape, np.uint8), np.zeros(inner.shape, np.uint8)
    whole = render(outer, views, count=all_count, **how)
    near = [v for view in views if (v := at_hand(view, inner, mode, interpolation)) is not None]
    part = render(inner, near, count=count, **how)
    crop = inner.relative_to(outer.start).slices
    np.testing.assert_array_equal(part, whole[crop])
    np.testing.assert_array_equal(count, all_count[crop])


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("mode", [m for m in BLENDINGS if m != "multiband"])
def test_a_part_is_a_part_of_the_whole_2d(mode, interpolation):
    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(scenes(2), st.sampled_from([UINT16, FLOAT]))
    def law(scene, dtype):
        assert_cut_out(scene, mode, interpolation, dtype)

    law()


@settings(max_examples=2, deadline=None, derandomize=True)
@given(scenes(2))
def test_a_part_is_a_part_of_the_whole_multiband(scene):
    assert_cut_out(scene, "multiband", "linear", UINT16)


@pytest.mark.parametrize("mode", BLENDINGS)
def test_a_part_is_a_part_of_the_whole_3d(mode):
    @settings(max_examples=1 if mode == "multiband" else 6, deadline=None, derandomize=True)
    @given(scenes(3), st.sampled_from(["nearest", "linear", "cubic"]))
    def law(scene, interpolation):
        assert_cut_out(scene, mode, interpolation, UINT16)

    law()


def test_samples_are_covered_where_tiles_are_counted():
    box = Box((-20, -30), (310, 300))
    views = affine_mosaic(Waves.random(0), degrees=8)
    count = np.zeros(box.shape, np.uint8)
    render(box, views, mode="max", interpolation="linear", dtype=FLOAT, count=count)
    sample = (slice(3, None, 7), slice(0, None, 5))
    np.testing.assert_array_equal(covered_samples(box, views, sample), count[sample] > 0)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "lanczos"])
def test_a_tile_left_in_its_dtype_gives_the_rounded_floats(interpolation):
    view = affine_mosaic(Waves.random(0), dtype=np.uint16)[0]
    box = Box((5, 5), (150, 150))
    how = {"mode": "linear", "interpolation": interpolation}
    floats = dataclasses.replace(view, pixels=view.pixels.astype(np.float32))
    expected = render(box, [floats], dtype=UINT16, **how)
    np.testing.assert_array_equal(render(box, [view], dtype=UINT16, **how), expected)


def test_render_fills_what_it_is_given():
    box, how = Box((0, 0), (90, 200)), {"mode": "linear", "interpolation": "linear"}
    views, out = affine_mosaic(Waves.random(0)), np.full((90, 200), 7, np.uint16)
    expected = render(box, views, dtype=UINT16, **how)
    assert render(box, views, dtype=UINT16, out=out, **how) is out
    np.testing.assert_array_equal(out, expected)
