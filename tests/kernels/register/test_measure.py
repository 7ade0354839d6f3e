import numpy as np
import pytest
from phantoms import Waves

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine, on_lattice
from warpbeam.kernels.register.measure import (
    Area,
    Pass,
    measure,
    moved_field,
    moving_box,
    widened,
)

SHAPE = (40, 48, 56)
LATTICE = Lattice.covering(Box.of_shape(SHAPE), (8, 8, 8))
TRUTH = Waves.random(1, 3, wavelengths=(8.0, 30.0), count=60, spread=1.0)
MATRIX = np.array([[1.01, 0.02, 0, 1.0], [-0.02, 1.0, 0.01, -2.0], [0, 0, 0.99, 1.5], [0, 0, 0, 1]])
STEP = Pass((24.0, 24.0, 24.0), None, 1, (1.0, 1.0, 1.0))
SEARCH = Pass((16.0, 16.0, 16.0), (4, 4, 4), 2, (1.0, 1.0, 1.0))
OFF = np.array([0.4, -0.3, 0.25])


def grid(box):
    axes = (np.arange(a, b, dtype=float) for a, b in zip(box.start, box.stop, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def chunk(nodes, most, given, off=OFF):
    """What a chunk measures where the map so far is off by `off` voxels everywhere."""
    area = Area.around(LATTICE, nodes, most, given, SHAPE)
    m = widened(from_affine(MATRIX, LATTICE), area.wide)
    box = moving_box(m, area)
    fixed = TRUTH.at(affine_points(grid(area.region) + off)).astype(np.float32)
    extent = Box.of_shape(SHAPE)
    inside = area.region & extent
    seen = np.full(area.region.shape, np.nan, np.float32)
    seen[inside.slices_in(area.region)] = fixed[inside.slices_in(area.region)]
    moving = TRUTH.at(grid(box)).astype(np.float32)
    return measure(seen, moving, m, (area, box), given, ((1000.0, 1.0), (1000.0, 1.0)))


def affine_points(points):
    return points @ MATRIX[:3, :3].T + MATRIX[:3, 3]


def test_a_step_finds_what_the_map_is_off():
    whole = Box.of_shape(LATTICE.shape)
    found = chunk(whole, LATTICE.shape, STEP)
    inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    assert np.abs(found.shift[inner] - OFF.reshape(3, 1, 1, 1)).max() < 0.1
    assert found.ncc[inner[1:]].min() > 0.9
    np.testing.assert_allclose(found.information, found.information.swapaxes(0, 1), atol=1e-6)


def test_a_search_finds_what_lies_far_off():
    off = np.array([2.0, -3.0, 1.0])
    found = chunk(Box.of_shape(LATTICE.shape), LATTICE.shape, SEARCH, off)
    known = np.isfinite(found.shift[0])
    assert known.sum() > 8
    assert not known[1::2].any()  # every other node is looked at
    apart = np.abs(found.shift[:, known] - off[:, None])
    assert np.median(apart) < 0.15
    assert np.quantile(apart, 0.9) < 0.5  # patches at the rim see half of what others see


@pytest.mark.parametrize(("given", "apart"), [(STEP, 2e-4), (SEARCH, 5e-3)])
def test_a_node_has_the_same_match_whatever_its_chunk(given, apart):
    whole = chunk(Box.of_shape(LATTICE.shape), LATTICE.shape, given)
    nodes = Box((2, 0, 3), (4, 3, 6))
    part = chunk(nodes, (2, 3, 3), given)
    here = (slice(None), *nodes.slices)
    np.testing.assert_allclose(part.shift, whole.shift[here], atol=apart)
    np.testing.assert_allclose(part.ncc, whole.ncc[nodes.slices], atol=apart)


def test_a_chunk_without_data_has_no_match():
    area = Area.around(LATTICE, Box.of_shape(LATTICE.shape), LATTICE.shape, STEP, SHAPE)
    m = widened(from_affine(MATRIX, LATTICE), area.wide)
    nothing = np.full(area.region.shape, np.nan, np.float32)
    found = measure(nothing, nothing, m, (area, area.region), STEP, ((0.0, 1.0), (0.0, 1.0)))
    assert np.isnan(found.shift).all()
    assert not found.information.any()


def test_errors_are_never_believed_to_be_below_a_fifth_of_a_voxel():
    found = chunk(Box.of_shape(LATTICE.shape), LATTICE.shape, STEP)
    values = np.linalg.eigvalsh(np.moveaxis(found.information, (0, 1), (-2, -1)))
    assert values.max() <= 25.0 + 1e-6


def test_widened_maps_go_straight_on():
    m = from_affine(MATRIX, LATTICE)
    nodes = Box.of_shape(LATTICE.shape).pad((3, 1, 2))
    wide = widened(m, nodes)
    np.testing.assert_allclose(wide.u, from_affine(MATRIX, wide.lattice).u, atol=1e-9)


def test_the_moving_box_holds_a_bulge_inside_of_a_chunk():
    """Corners alone would miss what the middle of a chunk does."""
    u = np.zeros((3, *LATTICE.shape))
    u[0, 2:4, 3, 3] = 15.0
    area = Area.around(LATTICE, Box.of_shape(LATTICE.shape), LATTICE.shape, STEP, SHAPE)
    box = moving_box(widened(on_lattice(u, LATTICE), area.wide), area)
    assert box.stop[0] > 24 + 15


def test_the_field_moves_by_what_a_match_says():
    d = CoordinateMap(np.stack([0.1 * LATTICE.nodes()[0]] * 3), LATTICE.origin, LATTICE.stride)
    shift = np.full(d.u.shape, 2.0)
    shift[:, 0, 0, 0] = np.nan
    moved = moved_field(d, shift)
    inner = (slice(None), slice(1, -1))
    np.testing.assert_allclose(moved[inner], (d.u + 0.2 + 2.0)[inner], atol=1e-9)
    assert np.isnan(moved[:, 0, 0, 0]).all()
