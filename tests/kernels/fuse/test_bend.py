"""Bent tiles: drawn where they belong, weighed where they are, the same however cut out."""

import numpy as np
import pytest
from phantoms import Waves, shifted

from warpbeam.kernels.fuse.bend import Bend
from warpbeam.kernels.fuse.blend import BLENDINGS
from warpbeam.kernels.fuse.render import covered_samples, needed, render
from warpbeam.kernels.fuse.view import TileView, source_box
from warpbeam.kernels.fuse.warp import reach, warp
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice

FLOAT = np.dtype(np.float32)
SIDE, STRIDE = 160, 10


def forward_map(seed, amplitude=3.0, side=SIDE, ndim=2):
    """A smooth map of a tile onto its straightened self, sampled finely, and as a function."""
    rng = np.random.default_rng(seed)
    k, phase = rng.uniform(-1, 1, (ndim, ndim)), rng.uniform(0, 2 * np.pi, ndim)
    lattice = Lattice((0.0,) * ndim, (float(STRIDE),) * ndim, (side // STRIDE + 1,) * ndim)

    def offset(points):
        return amplitude * np.sin(2 * np.pi * points @ k.T / side + phase)

    nodes = lattice.nodes()
    u = offset(nodes.reshape(ndim, -1).T).T.reshape(nodes.shape)
    return on_lattice(u, lattice), offset


def bent_view(truth, seed, matrix, side=SIDE, **more):
    """A tile that shows the truth where its map and its matrix say."""
    m, offset = forward_map(seed, side=side)
    grid = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2).astype(float)
    world = (grid + offset(grid)) @ matrix[:2, :2].T + matrix[:2, 2]
    pixels = truth.at(world).reshape(side, side).astype(np.float32)
    return TileView(pixels, Box.of_shape(pixels.shape), pixels.shape, matrix, bend=Bend.of(m),
                    **more)  # fmt: skip


def mosaic(truth, step=110):
    views = []
    for k in range(4):
        matrix = shifted(*(np.array(divmod(k, 2)) * step + (0.3, -1.7)))
        matrix[:2, :2] += np.random.default_rng(k).uniform(-2e-3, 2e-3, (2, 2))
        views.append(bent_view(truth, k, matrix))
    return views


def test_the_inverse_leads_back():
    m, offset = forward_map(1)
    bend = Bend.of(m)
    points = np.random.default_rng(0).uniform(0, SIDE - 1, (500, 2))
    back = bend.bent(points + offset(points))
    assert np.abs(back - points).max() < 0.16  # what linear interpolation between nodes costs
    assert 2.5 < bend.reach <= 4


def test_the_inverse_goes_on_beyond_the_tile():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (5, 5))
    m = on_lattice(0.1 * (lattice.nodes() - 20), lattice)
    bend = Bend.of(m)
    points = np.array([[-3.0, 20.0], [44.0, 44.0]])
    np.testing.assert_allclose(bend.bent(points), 20 + (points - 20) / 1.1, atol=1e-4)


def test_a_map_with_gaps_is_refused():
    m, _ = forward_map(1)
    m.u[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="known at all nodes"):
        Bend.of(m)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("mode", BLENDINGS)
def test_bent_tiles_are_drawn_where_they_belong(mode, interpolation):
    truth = Waves.random(1, wavelengths=(20, 80))
    box = Box((6, 6), (250, 250))
    fused = render(box, mosaic(truth), mode=mode, interpolation=interpolation, dtype=FLOAT)
    error = fused - truth.image(box.shape, shifted(*box.start))
    straight = [TileView(v.pixels, v.window, v.shape, v.matrix) for v in mosaic(truth)]
    off = render(box, straight, mode=mode, interpolation=interpolation, dtype=FLOAT)
    assert error.std() < (0.2 if interpolation == "nearest" else 0.06) * np.std(
        off - truth.image(box.shape, shifted(*box.start))
    )


@pytest.mark.parametrize("mode", BLENDINGS)
def test_a_map_that_moves_nothing_changes_nothing(mode):
    truth = Waves.random(2)
    views, bent = [], []
    for k in range(4):
        matrix = shifted(*(np.array(divmod(k, 2)) * 60 + 0.25))
        pixels = truth.image((90, 90), matrix).astype(np.float32)
        lattice = Lattice((0.0, 0.0), (15.0, 15.0), (7, 7))
        bend = Bend.of(CoordinateMap(np.zeros((2, 7, 7)), lattice.origin, lattice.stride))
        window = Box.of_shape(pixels.shape)
        views.append(TileView(pixels, window, pixels.shape, matrix))
        bent.append(TileView(pixels, window, pixels.shape, matrix, bend=bend))
    box = Box((-3, -3), (155, 155))
    counts = np.zeros((2, *box.shape), np.uint8)
    one, two = (
        render(box, v, mode=mode, interpolation="linear", dtype=FLOAT, count=c)
        for v, c in zip((views, bent), counts, strict=True)
    )
    np.testing.assert_array_equal(*counts)
    np.testing.assert_allclose(one, two, atol=1)  # of 200; at the rim weights differ


@pytest.mark.parametrize("mode", BLENDINGS)
def test_any_cut_gives_the_same_bits(mode):
    truth = Waves.random(3)
    mask = np.ones((SIDE, SIDE), bool)
    mask[40:60, 100:140] = False
    views = [*mosaic(truth)[:3], bent_view(truth, 9, shifted(110, 110), mask=mask)]
    whole = Box((-8, -8), (280, 280))
    expected = render(whole, views, mode=mode, interpolation="linear", dtype=FLOAT)
    for box in (Box((-8, -8), (30, 90)), Box((61, 100), (200, 280)), Box((130, 0), (131, 280))):
        part = render(box, [windowed(v, box, mode) for v in views], mode=mode,
                      interpolation="linear", dtype=FLOAT)  # fmt: skip
        np.testing.assert_array_equal(part, expected[box.slices_in(whole)])


def windowed(view, box, mode):
    """The view with just the voxels that the box needs."""
    margin = reach("linear") + view.reach
    window = source_box(view.inverse, view.shape, needed(box, mode), margin)
    mask = None if view.mask is None else view.mask[window.slices]
    return TileView(view.pixels[window.slices], window, view.shape, view.matrix, mask,
                    bend=view.bend)  # fmt: skip


def test_the_outline_is_that_of_the_bent_tile():
    truth = Waves.random(0)
    view = bent_view(truth, 5, shifted(20, 30))
    _, offset = forward_map(5)
    box = Box((0, 0), (220, 220))
    count = np.zeros(box.shape, np.uint8)
    render(box, [view], mode="linear", interpolation="linear", dtype=FLOAT, count=count)
    edge = np.linspace(-0.5, SIDE - 0.5, 60)
    for side in (-0.5, SIDE - 0.5):
        for points in (
            np.stack([np.full(60, side), edge], 1),
            np.stack([edge, np.full(60, side)], 1),
        ):
            for inward, drawn in ((0.8, 1), (-0.8, 0)):
                at = points + inward * np.sign(79.5 - points) * (np.abs(points - 79.5) > 79.9)
                index = np.rint(at + offset(at) + (20, 30)).astype(int)
                assert (count[tuple(index.T)] == drawn).mean() > 0.97
    sample = (slice(2, None, 4),) * 2
    seen = covered_samples(box, [view], sample)
    np.testing.assert_array_equal(seen, count[sample] > 0)


def test_bent_blocks():
    side = 40
    m, offset = forward_map(2, amplitude=1.0, side=side, ndim=3)
    truth = Waves.random(4, 3, wavelengths=(16, 60))
    grid = np.stack(np.mgrid[:side, :side, :side], -1).reshape(-1, 3).astype(float)
    matrix = shifted(3.0, 2.5, -1.25)
    pixels = truth.at(grid + offset(grid) + matrix[:3, 3]).reshape((side,) * 3).astype(np.float32)
    view = TileView(pixels, Box.of_shape(pixels.shape), pixels.shape, matrix, bend=Bend.of(m))
    box = Box((8, 8, 8), (34, 34, 30))
    for interpolation, share in (("nearest", 0.3), ("linear", 0.2), ("cubic", 0.1)):
        drawn = warp(view, box, interpolation)
        assert drawn.box == box
        assert drawn.valid is None
        error = drawn.values - truth.image(box.shape, shifted(*box.start))
        assert error.std() < share * 200
