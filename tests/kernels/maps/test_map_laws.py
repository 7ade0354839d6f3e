"""The laws that coordinate maps obey, on random smooth maps whose truth is known everywhere."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import Waves

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine, identity, on_lattice
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.maps.points import warp_points
from warpbeam.kernels.maps.resample import resample
from warpbeam.kernels.maps.rescale import rescale

# Waves this many times longer than the stride, and of this size, cannot fold (slope < 0.22).
LENGTHS = (20.0, 60.0)
SPREAD, COUNT = 0.2, 6

few = settings(max_examples=15, deadline=None)


@dataclass(frozen=True)
class Field:
    """Offsets known at every point."""

    parts: list[Waves]
    size: float

    def at(self, points):
        rows = points.reshape(len(points), -1).T
        return np.stack([w.at(rows) - w.mean for w in self.parts]).reshape(points.shape)

    def on(self, lattice):
        return on_lattice(self.at(lattice.nodes()), lattice)

    @property
    def bend(self):
        """A bound on the error of multilinear interpolation on nodes `size` apart."""
        second = (2 * np.pi / LENGTHS[0]) ** 2 * SPREAD * self.size * np.sqrt(2 * COUNT)
        return len(self.parts) / 8 * second


def field(seed, ndim, size):
    lengths = (LENGTHS[0] * size, LENGTHS[1] * size)
    options = {"wavelengths": lengths, "count": COUNT, "spread": SPREAD * size}
    return Field([Waves.random(seed * 5 + k, ndim, **options) for k in range(ndim)], size)


numbers = st.tuples(
    st.sampled_from([2, 3]),
    st.sampled_from([4.0, 10.0, 40.0]),
    st.lists(st.integers(400, 1000), min_size=9, max_size=9),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.integers(0, 10**6),
)


def lattices(case):
    """Two lattices, of which the second covers the first with a margin, a size and a seed."""
    ndim, size, shares, extra, seed = case
    origin, *strides = np.reshape(shares, (3, 3))[:, :ndim] / 1000
    origin = origin * 400 - 280
    shape = tuple((12 if ndim == 2 else 6) + n for n in extra[:ndim])
    first = Lattice(tuple(origin), tuple(strides[0] * size), shape)
    start = origin - 3 * size
    length = (np.array(shape) - 1) * strides[0] * size + 6 * size
    around = np.ceil(length / (strides[1] * size)).astype(int) + 1
    second = Lattice(tuple(start), tuple(strides[1] * size), tuple(around.tolist()))
    return first, second, size, seed


def gap(a, b):
    """The greatest difference where both are known."""
    both = a.known & b.known
    assert both.any()
    return np.abs(a.u - b.u)[:, both].max()


def holed(m, seed, share=0.1):
    u = m.u.copy()
    u[:, np.random.default_rng(seed).random(m.lattice.shape) < share] = np.nan
    return m.with_offsets(u)


@few
@given(numbers)
def test_identity_is_neutral(case):
    first, second, size, seed = lattices(case)
    m = holed(field(seed, first.ndim, size).on(first), seed)
    np.testing.assert_array_equal(compose(identity(first), m).u, m.u)
    np.testing.assert_array_equal(compose(m, identity(second)).u, m.u)


@few
@given(numbers)
def test_compose_is_one_after_the_other(case):
    first, second, size, seed = lattices(case)
    a, b = field(seed, first.ndim, size), field(seed + 1, first.ndim, size)
    got = compose(a.on(first), b.on(second))
    middle = first.nodes() + a.at(first.nodes())
    assert np.abs(got.u - (a.at(first.nodes()) + b.at(middle))).max() <= b.bend
    assert np.abs(b.at(middle)).max() > 4 * b.bend or size < 5  # the bound can tell


@few
@given(numbers)
def test_compose_is_associative(case):
    first, second, size, seed = lattices(case)
    a, b, c = (field(seed + i, first.ndim, size) for i in range(3))
    inner = Lattice(second.origin, second.stride, second.shape)
    left = compose(compose(a.on(first), b.on(inner)), c.on(inner))
    right = compose(a.on(first), compose(b.on(inner), c.on(inner), outside="nearest"))
    inside = left.known & right.known
    assert inside.mean() > 0.5
    # interpolating c∘b instead of b, then c: both errors, the first one through c's slope
    assert gap(left, right) <= 4 * b.bend


@few
@given(numbers)
def test_inverse_undoes(case):
    first, _, size, seed = lattices(case)
    truth = field(seed, first.ndim, size)
    m = truth.on(first)
    back = invert(m)
    there = compose(back, m)
    assert np.abs(there.u[:, there.known]).max() <= 1e-5 * size
    again = compose(m, back)
    assert np.abs(again.u[:, again.known]).max() <= 2 * truth.bend
    # what lies a reach inside the lattice is surely in the image
    reach = np.ceil(np.abs(m.u).max() / min(first.stride)).astype(int)
    core = tuple(slice(reach, n - reach) for n in first.shape)
    assert back.known[core].all()


@few
@given(numbers)
def test_inverse_of_a_composition(case):
    first, _, size, seed = lattices(case)
    a, b = field(seed, first.ndim, size).on(first), field(seed + 1, first.ndim, size).on(first)
    left = invert(compose(a, b, outside="nearest"))
    right = compose(invert(b), invert(a))
    # a hull of border points that were not known moves what lies next to it
    core = tuple(slice(2, -2) for _ in first.shape)
    both = (left.known & right.known)[core]
    error = np.abs(left.u - right.u)[(slice(None), *core)][:, both]
    assert error.size == 0 or error.max() <= 6 * field(seed, first.ndim, size).bend


@few
@given(numbers)
def test_resampling_at_the_same_nodes_changes_nothing(case):
    first, _, size, seed = lattices(case)
    m = holed(field(seed, first.ndim, size).on(first), seed)
    for method in ("nearest", "linear"):
        np.testing.assert_array_equal(resample(m, first, method).u, m.u)
    np.testing.assert_allclose(resample(m, first, "cubic").u, m.u, atol=1e-9 * size)


@few
@given(numbers)
def test_parts_are_the_whole(case):
    first, second, size, seed = lattices(case)
    a, b = field(seed, first.ndim, size).on(first), field(seed + 1, first.ndim, size).on(second)
    part = Box(tuple(n // 3 for n in first.shape), tuple(n - 2 for n in first.shape))
    composed = compose(a, b)
    np.testing.assert_allclose(compose(a.crop(part), b).u, composed.crop(part).u, atol=1e-9)
    for whole, some in (
        (invert(b, first), invert(b, first.crop(part))),
        (resample(b, first), resample(b, first.crop(part))),
    ):
        np.testing.assert_allclose(some.u, whole.crop(part).u, atol=1e-7, equal_nan=True)


@few
@given(numbers)
def test_points_follow_the_map(case):
    first, second, size, seed = lattices(case)
    truth = field(seed, first.ndim, size)
    points = first.nodes().reshape(first.ndim, -1).T
    moved = warp_points(truth.on(second), points)
    assert np.abs(moved - points - truth.at(points.T).T).max() <= truth.bend


@few
@given(numbers, st.sampled_from([0.5, 2.0, 3.0]))
def test_rescaling(case, factor):
    first, _, size, seed = lattices(case)
    m = field(seed, first.ndim, size).on(first)
    k = [factor] * m.ndim
    both = rescale(m, k, k)
    np.testing.assert_allclose(both.u, m.u / factor, atol=1e-9)  # the same warp in other voxels
    back = rescale(both, [1 / factor] * m.ndim, [1 / factor] * m.ndim)
    np.testing.assert_allclose(back.u, m.u, atol=1e-9)
    np.testing.assert_allclose(back.origin, m.origin, atol=1e-9)


def test_affine_maps_compose_like_matrices():
    lattice = Lattice((-300.0, -300.0), (20.0, 30.0), (60, 50))
    rng = np.random.default_rng(0)
    A, B = (np.eye(3) for _ in range(2))
    A[:2] += rng.uniform(-0.05, 0.05, (2, 3))
    B[:2] += rng.uniform(-0.05, 0.05, (2, 3))
    a, b = from_affine(A, lattice), from_affine(B, lattice)
    ab = compose(a, b)
    assert ab.known.mean() > 0.8
    assert gap(ab, from_affine(B @ A, lattice)) < 1e-9
    assert gap(invert(a), from_affine(np.linalg.inv(A), lattice)) < 1e-7
    finer = Lattice((-100.5, 7.25), (3.5, 4.75), (50, 60))
    for method in ("linear", "cubic"):
        assert gap(resample(a, finer, method), from_affine(A, finer)) < 1e-9


def test_sections_are_independent():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (9, 11))
    maps = [field(seed, 2, 10.0).on(lattice) for seed in range(3)]
    stack = CoordinateMap(np.stack([m.u for m in maps], axis=1), lattice.origin, lattice.stride)
    assert (stack.ndim, stack.batch) == (2, (3,))
    single = maps[1]
    for z, m in enumerate(maps):
        np.testing.assert_array_equal(compose(stack, single).section(z).u, compose(m, single).u)
        np.testing.assert_array_equal(compose(single, stack).section(z).u, compose(single, m).u)
        np.testing.assert_array_equal(invert(stack).section(z).u, invert(m).u)
    point = np.array([[33.0, 41.0], [33.0, 41.0]])
    got = warp_points(stack, point, np.array([2, 0]))
    np.testing.assert_array_equal(got[0], warp_points(maps[2], point[:1])[0])
    np.testing.assert_array_equal(got[1], warp_points(maps[0], point[:1])[0])


def test_unknown_nodes_spoil_their_cells_only():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (6, 6))
    m = identity(lattice)
    m.u[:, 2, 3] = np.nan
    points = np.array([[20.0, 30.0], [21.0, 31.0], [20.0, 20.0], [19.0, 39.0], [5.0, 30.0]])
    unknown = np.isnan(warp_points(m, points)).any(axis=1)
    np.testing.assert_array_equal(unknown, [True, True, False, True, False])
    outside = np.array([[-1.0, 5.0], [50.0, 50.0], [50.1, 0.0], [np.nan, 0.0]])
    unknown = np.isnan(warp_points(m, outside)).any(axis=1)
    np.testing.assert_array_equal(unknown, [True, False, True, True])
    unknown = np.isnan(warp_points(m, outside, outside="nearest")).any(axis=1)
    np.testing.assert_array_equal(unknown, [False, False, False, True])


def test_float32_stays_float32():
    lattice = Lattice((0.0, 0.0), (10.0, 10.0), (9, 11))
    m = on_lattice(field(0, 2, 10.0).on(lattice).u.astype(np.float32), lattice)
    for made in (compose(m, m), invert(m), resample(m, lattice, "cubic"), rescale(m, [2.0, 2.0])):
        assert made.u.dtype == np.float32


@pytest.mark.parametrize(
    ("u", "origin", "stride", "message"),
    [
        (np.zeros((2, 5)), (0.0, 0.0), (1.0, 1.0), "shape"),
        (np.zeros((4, 5, 5, 5, 5)), (0.0, 0.0), (1.0, 1.0), "shape"),
        (np.zeros((2, 5, 5)), (0.0, 0.0), (1.0, 0.0), "positive"),
        (np.zeros((2, 5, 5)), (0.0, 0.0, 0.0), (1.0, 1.0), "rank"),
        (np.zeros((2, 0, 5)), (0.0, 0.0), (1.0, 1.0), "one node"),
        (np.zeros((2, 5, 5)), (0.0, np.nan), (1.0, 1.0), "finite"),
    ],
)
def test_what_is_no_map(u, origin, stride, message):
    with pytest.raises(ValueError, match=message):
        CoordinateMap(u, origin, stride)


def test_what_does_not_fit():
    flat = identity(Lattice((0.0, 0.0), (1.0, 1.0), (3, 3)))
    deep = identity(Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 3, 3)))
    with pytest.raises(ValueError, match="2-D map cannot be followed by a 3-D"):
        compose(flat, deep)
    with pytest.raises(ValueError, match="no inverse on a 3-D"):
        invert(flat, deep.lattice)
    with pytest.raises(ValueError, match="two nodes"):
        invert(identity(Lattice((0.0, 0.0), (1.0, 1.0), (1, 3))))
    with pytest.raises(ValueError, match="go together"):
        warp_points(flat, np.zeros((1, 2)), np.zeros(1, int))
    stack = identity(flat.lattice, (2,))
    with pytest.raises(ValueError, match="sections 0 to 2 of a batch of 2"):
        warp_points(stack, np.zeros((2, 2)), np.array([0, 2]))


def test_a_map_then_a_matrix_is_the_matrix_of_the_moved_points():
    lattice = Lattice((0.0, 5.0, -3.0), (4.0, 6.0, 5.0), (5, 6, 7))
    matrix = np.array(
        [[1.01, 0.02, 0, 1.0], [-0.02, 1.0, 0.01, -2.0], [0, 0, 0.99, 1.5], [0, 0, 0, 1]]
    )
    u = np.random.default_rng(0).normal(size=(3, *lattice.shape))
    field = on_lattice(u, lattice)
    total = then_matrix(field, matrix)
    points = field.absolute.reshape(3, -1).T
    wanted = affine.apply(matrix, points).T.reshape(u.shape)
    np.testing.assert_allclose(total.absolute, wanted, atol=1e-9)
