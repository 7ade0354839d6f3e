"""Images through coordinate maps, against scipy's interpolation and against known truth."""

import numpy as np
import pytest
from phantoms import Waves
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine, identity, on_lattice
from warpbeam.kernels.maps.rescale import rescale
from warpbeam.kernels.warp.image import needed, warp_image
from warpbeam.kernels.warp.source import Source


def bumpy(seed, shape, stride, spread, origin=None):
    """A smooth map whose nodes cover an image of `shape`."""
    ndim = len(shape)
    lattice = Lattice.covering(Box.of_shape(shape), stride)
    lattice = Lattice(origin or lattice.origin, lattice.stride, lattice.shape)
    size = max(shape)
    waves = [Waves.random(seed + k, ndim, wavelengths=(size / 2, 2 * size), spread=spread)
             for k in range(ndim)]  # fmt: skip
    nodes = lattice.nodes().reshape(ndim, -1).T
    u = np.stack([w.at(nodes) - w.mean for w in waves])
    return on_lattice(u.reshape(ndim, *lattice.shape), lattice)


def positions(m, box):
    """M at every voxel of a box, in float64, by scipy."""
    grid = np.stack(np.meshgrid(
        *map(np.arange, box.start, box.stop), indexing="ij"
    )).astype(float)  # fmt: skip
    shape = (-1, *[1] * m.ndim)
    index = (grid - np.reshape(m.origin, shape)) / np.reshape(m.stride, shape)
    return grid + [ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in m.u]


def by_scipy(pixels, m, box, order):
    where = positions(m, box)
    limits = np.reshape(pixels.shape, (-1, *[1] * m.ndim))
    inside = ((where >= -0.5) & (where <= limits - 0.5)).all(axis=0)
    values = ndimage.map_coordinates(pixels.astype(float), where, order=order, mode="nearest")
    return values, inside


def texture(shape, seed=0):
    return Waves.random(seed, len(shape), wavelengths=(5.0, 40.0), spread=40.0).image(shape) - 870


@pytest.mark.parametrize(
    ("interpolation", "order", "rms"), [("linear", 1, 0.005), ("cubic", 3, 0.01)]
)
@pytest.mark.parametrize("stride", [(40.0, 40.0), (7.3, 12.5)])
def test_2d_like_scipy(interpolation, order, rms, stride):
    shape = (600, 550)  # several cells
    pixels = texture(shape)
    m = bumpy(1, shape, stride, 6.0)
    box = Box((-5, -3), (610, 560))
    got = warp_image(Source.whole(pixels.astype(np.float32)), m, box, interpolation, background=-1)
    values, inside = by_scipy(pixels, m, box, order)
    core = Box.of_shape(shape).slices_in(box)  # scipy repeats the map's border, we continue it
    edge = np.abs(ndimage.gaussian_filter(inside.astype(float), 1) - 0.5) < 0.499
    sure = np.zeros(box.shape, bool)
    sure[core] = ~edge[core]
    assert (got[sure & ~inside] == -1).all()
    error = (got - values)[sure & inside]
    assert sure.mean() > 0.8
    assert np.sqrt(np.mean(error**2)) < rms
    assert np.abs(error).max() < 10 * rms


@pytest.mark.parametrize(
    ("interpolation", "order", "rms"), [("linear", 1, 0.005), ("cubic", 3, 0.01)]
)
def test_3d_like_scipy(interpolation, order, rms):
    shape = (30, 80, 140)
    pixels = texture(shape)
    m = bumpy(1, shape, (6.0, 20.0, 20.0), 2.0)
    got = warp_image(Source.whole(pixels.astype(np.float32), 3), m, Box.of_shape(shape),
                     interpolation)  # fmt: skip
    values, _ = by_scipy(pixels, m, Box.of_shape(shape), order)
    where = positions(m, Box.of_shape(shape))
    limits = np.reshape(shape, (3, 1, 1, 1)) - 1
    sure = ((where > 0) & (where < limits)).all(axis=0)
    error = (got - values)[sure]
    assert sure.mean() > 0.7
    assert np.sqrt(np.mean(error**2)) < rms
    assert np.abs(error).max() < 10 * rms
    outside = ((where < -0.51) | (where > limits + 0.51)).any(axis=0)
    assert outside.any()
    assert (got[outside] == 0).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float64"]
)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
def test_dtypes(dtype, interpolation):
    shape = (50, 60)
    kind = np.dtype(dtype)
    info = np.iinfo(kind) if kind.kind in "iu" else None
    pixels = texture(shape)
    if info is not None:  # from clipped to clipped
        pixels = (pixels - pixels.mean()) / pixels.std() * (info.max / 3) + info.max / 2
        pixels = np.clip(pixels, info.min, np.nextafter(float(info.max), 0))
    pixels = pixels.astype(kind)
    box = Box.of_shape(shape)
    m = bumpy(2, shape, (20.0, 20.0), 1.0)
    got = warp_image(Source.whole(pixels), m, box, interpolation)
    assert got.dtype == kind
    order = {"nearest": 0, "linear": 1, "cubic": 3, "lanczos": 3}[interpolation]
    values, inside = by_scipy(pixels, m, box, order)
    if info is not None:
        values = np.clip(np.rint(values), info.min, info.max)
    scale = float(pixels.max()) - float(pixels.min())
    tolerance = {"linear": 1e-5, "nearest": 0, "cubic": 3e-5, "lanczos": 0.12}[interpolation]
    core = (slice(4, -4), slice(4, -4))
    error = np.abs(got.astype(float) - values)[core][inside[core]]
    assert error.max() <= tolerance * scale + (1 if info is not None and tolerance else 0)
    wide = warp_image(Source.whole(pixels), m, box, interpolation, dtype=np.dtype(np.float64))
    assert wide.dtype == np.float64


def test_lanczos_follows_the_truth():
    """Of the interpolations it must be the sharpest on fine texture, linear the least."""
    shape = (200, 200)
    truth = Waves.random(3, wavelengths=(4.0, 8.0), spread=40.0)
    m = bumpy(4, shape, (20.0, 20.0), 3.0)
    box = Box((10, 10), (190, 190))
    where = positions(m, box)
    expected = truth.at(np.moveaxis(where, 0, -1))
    source = Source.whole(truth.image(shape).astype(np.float32))
    error = {}
    for name in ("linear", "cubic", "lanczos"):
        got = warp_image(source, m, box, name)
        core = ((where > 5) & (where < 194)).all(axis=0)
        error[name] = np.sqrt(np.mean((got - expected)[core] ** 2))
    assert error["cubic"] < 0.35 * error["linear"]
    assert error["lanczos"] < 0.35 * error["linear"]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("bounded", [False, True])
def test_blocks_are_the_whole(ndim, interpolation, dtype, bounded):
    """To the bit, with only the voxels of the source that are `needed`."""
    if ndim == 3 and interpolation == "lanczos":
        return
    shape = (600, 700) if ndim == 2 else (20, 150, 60)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape).astype(dtype)
    extent = Box.of_shape(shape)
    m = bumpy(5, shape, (40.0,) * ndim, 5.0)
    m.u[(slice(None), *[1] * ndim)] = np.nan
    bounds = extent if bounded else None
    whole = warp_image(Source.whole(pixels, ndim), m, extent, interpolation, bounds=bounds)
    assert (whole == 0).any()
    for _ in range(3):
        start = [int(rng.integers(0, n - 5)) for n in shape]
        stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, shape, strict=True)]
        box = Box(tuple(start), tuple(stop))
        window = needed(m, box, extent, interpolation, bounds=bounds)
        source = Source(pixels[window.slices], window, extent)
        got = warp_image(source, m, box, interpolation, bounds=bounds)
        np.testing.assert_array_equal(got, whole[box.slices])


def test_only_what_was_loaded():
    pixels = np.zeros((100, 100), np.float32)
    m = identity(Lattice((0.0, 0.0), (50.0, 50.0), (3, 3)))
    source = Source(pixels[:, :50], Box((0, 0), (100, 50)), Box.of_shape((100, 100)))
    with pytest.raises(ValueError, match=r"the source holds .* is needed"):
        warp_image(source, m, Box.of_shape((10, 10)))
    window = needed(m, Box.of_shape((10, 10)), Box((5000, 0), (5100, 100)))
    assert not window


def test_longer_than_32768():
    """OpenCV refuses such sources and outputs; a wild map also leads from end to end of it."""
    shape = (12, 70000)
    pixels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    m = identity(Lattice.covering(Box.of_shape(shape), (10.0, 1000.0)))
    m.u[1] += 0.375
    m.u[1, :, 20:22] += 30000.0
    box = Box((2, 5000), (9, 69000))
    got = warp_image(Source.whole(pixels), m, box)
    values, inside = by_scipy(pixels, m, box, 1)
    assert inside.all()
    # between the nodes 19 and 20 the map runs 31 times as fast: float32 shows there
    calm = np.ones(box.shape, bool)
    calm[:, 14000:17000] = False
    assert np.abs(got - values)[calm].max() < 0.05
    assert np.sqrt(np.mean((got - values)[~calm] ** 2)) < 1.0


def test_a_warp_after_a_warp_is_the_warp_of_the_composition():
    shape = (240, 240)
    image = Waves.random(7, wavelengths=(30.0, 90.0), spread=40.0).image(shape).astype(np.float32)
    a, b = bumpy(8, shape, (5.0, 5.0), 3.0), bumpy(10, shape, (4.0, 4.0), 3.0)
    box = Box.of_shape(shape)
    twice = warp_image(Source.whole(warp_image(Source.whole(image), b, box, "cubic")), a, box,
                       "cubic")  # fmt: skip
    once = warp_image(Source.whole(image), compose(a, b, outside="nearest"), box, "cubic")
    core = (slice(20, -20), slice(20, -20))
    assert np.abs(once - image)[core].max() > 20
    assert np.sqrt(np.mean((once - twice)[core] ** 2)) < 0.1


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_another_voxel_size(factor):
    """A voxel k times larger is centred between the small ones it replaces."""
    truth = Waves.random(11, wavelengths=(60.0, 200.0), spread=40.0)
    shape = (160, 160)
    image = truth.image(shape).astype(np.float32)
    shift = from_affine(
        np.array([[1, 0.02, 3.25], [-0.01, 1, -4.5], [0, 0, 1]]),
        Lattice((0.0, 0.0), (40.0, 40.0), (5, 5)),
    )
    coarser = rescale(shift, [factor] * 2)
    box = Box((int(20 / factor),) * 2, (int(140 / factor),) * 2)
    got = warp_image(Source.whole(image), coarser, box, "cubic")
    q = np.stack(np.meshgrid(*map(np.arange, box.start, box.stop), indexing="ij"), axis=-1)
    p = factor * q + (factor - 1) / 2
    matrix = np.array([[1, 0.02], [-0.01, 1]])
    assert np.abs(got - truth.at(p @ matrix.T + [3.25, -4.5])).max() < 0.05
    # and from a source of larger voxels
    level = rescale(shift, [factor] * 2, [2.0] * 2)
    halved = image.reshape(80, 2, 80, 2).mean(axis=(1, 3))
    from_level = warp_image(Source.whole(halved), level, box, "cubic")
    assert np.abs(from_level - got).max() < 1.5


def test_sections_and_channels():
    rng = np.random.default_rng(0)
    stack = rng.uniform(0, 255, (2, 3, 40, 50)).astype(np.float32)  # [channel, z, y, x]
    maps = [bumpy(20 + z, (40, 50), (10.0, 10.0), 2.0) for z in range(3)]
    maps[1].u[:] = np.nan
    batch = CoordinateMap(np.stack([m.u for m in maps], axis=1), maps[0].origin, maps[0].stride)
    box = Box.of_shape((40, 50))
    got = warp_image(Source.whole(stack), batch, box, background=7)
    for c, z in np.ndindex(2, 3):
        one = warp_image(Source.whole(stack[c, z]), maps[z], box, background=7)
        np.testing.assert_array_equal(got[c, z], one)
    assert (got[:, 1] == 7).all()
    same = warp_image(Source.whole(stack), maps[0], box)  # one map for all
    np.testing.assert_array_equal(same[1, 2], warp_image(Source.whole(stack[1, 2]), maps[0], box))
    with pytest.raises(ValueError, match="does not fit images stacked as"):
        warp_image(Source.whole(stack[:, :2]), batch, box)


def test_an_unknown_node_leaves_background_in_its_cells_only():
    m = identity(Lattice((0.0, 0.0), (10.0, 10.0), (11, 11)))
    m.u[:, 5, 5] = np.nan
    pixels = np.full((100, 100), 9, np.uint8)
    got = warp_image(Source.whole(pixels), m, Box.of_shape((100, 100)), background=3)
    hole = np.zeros((100, 100), bool)
    hole[40:61, 40:61] = True
    assert (got[~hole] == 9).all()
    assert (got[41:60, 41:60] == 3).all()


def test_nan_pixels_stay_local():
    pixels = texture((80, 80)).astype(np.float32)
    pixels[40, 40] = np.nan
    m = from_affine(np.array([[1, 0, 0.25], [0, 1, 0.5], [0, 0, 1]]),
                    Lattice((0.0, 0.0), (20.0, 20.0), (5, 5)))  # fmt: skip
    for interpolation, reach in (("linear", 1), ("cubic", 16), ("lanczos", 5)):
        got = warp_image(Source.whole(pixels), m, Box.of_shape((79, 79)), interpolation)
        unknown = np.argwhere(np.isnan(got))
        assert len(unknown)
        assert np.abs(unknown - 40).max() <= reach
    whole = warp_image(Source.whole(pixels), m, Box.of_shape((79, 79)), dtype=np.dtype(np.uint8))
    assert whole[40, 40] == 0


def test_what_cannot_be_drawn():
    m = identity(Lattice((0.0, 0.0), (1.0, 1.0), (3, 3)))
    deep = identity(Lattice((0.0,) * 3, (1.0,) * 3, (3, 3, 3)))
    image = Source.whole(np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="no 'lanczos' interpolation in 3-D"):
        warp_image(Source.whole(np.zeros((3, 3, 3)), 3), deep, Box.of_shape((3, 3, 3)), "lanczos")
    with pytest.raises(ValueError, match="no 'sinc' interpolation"):
        warp_image(image, m, Box.of_shape((3, 3)), "sinc")
    with pytest.raises(ValueError, match="a 3-D map, a 2-D box and a 2-D source"):
        warp_image(image, deep, Box.of_shape((3, 3)))
    with pytest.raises(ValueError, match="do not fill a window"):
        Source(np.zeros((3, 3)), Box.of_shape((3, 4)), Box.of_shape((9, 9)))
    with pytest.raises(ValueError, match="is not a part of"):
        Source(np.zeros((3, 3)), Box.of_shape((3, 3)), Box.of_shape((2, 2)))
