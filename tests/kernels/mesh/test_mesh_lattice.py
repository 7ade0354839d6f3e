import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.linear.conjugate_gradients import conjugate_gradients
from warpbeam.kernels.mesh.bending import bending_forms
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.gauss_newton import relax
from warpbeam.kernels.mesh.lattice import add_product, assembled
from warpbeam.kernels.mesh.multigrid import LatticeMultigrid, _prolong, _restrict


@pytest.mark.parametrize("shape", [(7, 5), (300, 130), (4, 5, 6)])
def test_products_agree_with_the_assembled_matrix(shape):
    forms = Elasticity((10.0,) * len(shape), 0.1, 50.0).forms()
    x = np.random.default_rng(0).normal(0, 1, (len(shape), *shape))
    out = np.ones_like(x)
    add_product(forms, x, out)
    matrix = assembled(forms, shape, len(shape))
    np.testing.assert_allclose(out.ravel(), 1 + matrix @ x.ravel(), atol=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.booleans())
def test_affine_maps_do_not_bend(numbers, deep):
    shape, stride = ((3, 4, 5), (30.0, 9.0, 11.0)) if deep else ((6, 5), (9.0, 11.0))
    axes = np.meshgrid(*(s * np.arange(n) for s, n in zip(stride, shape, strict=True)))
    axes = [np.moveaxis(axis, 0, 1) for axis in axes]
    u = np.stack([sum(n * a for n, a in zip(numbers[c:], axes, strict=False)) + c for c in (0, 1)])
    u = np.concatenate([u, u[:1]]) if deep else u
    out = np.zeros_like(u)
    add_product(bending_forms(stride, 10.0, len(stride)), u, out)
    np.testing.assert_allclose(out, 0, atol=1e-8)


@pytest.mark.parametrize("stride", [10.0, 20.0])
def test_bending_halves_its_wavelength(stride):
    """Whatever the stride, and whatever the direction of the wave."""
    half, count = 320.0, round(3200 / stride)
    y, x = stride * np.mgrid[:count, :count]
    wave = np.cos(2 * np.pi * (0.6 * x + 0.8 * y) / half)
    mesh = relax(np.stack([wave, 0 * wave]), Elasticity((stride, stride), bending_px=half))
    inner = (slice(count // 4, -count // 4),) * 2
    gain = (mesh.offsets[0] * wave)[inner].sum() / (wave[inner] ** 2).sum()
    assert gain == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_restriction_is_the_transpose_of_interpolation(count):
    rng = np.random.default_rng(count)
    coarse, fine = rng.normal(0, 1, (3, count // 2 + 1)), rng.normal(0, 1, (3, count))
    up, down = _prolong(coarse, 1, count), _restrict(fine, 1)
    assert (up * fine).sum() == pytest.approx((coarse * down).sum())
    np.testing.assert_allclose(_prolong(np.ones((1, count // 2 + 1)), 1, count), 1)


@pytest.mark.parametrize(("spring", "bending"), [(0.1, 0.0), (0.0, 400.0), (10.0, 1000.0)])
def test_multigrid_is_symmetric_and_needs_few_steps(spring, bending):
    rng = np.random.default_rng(0)
    forms = Elasticity((40.0, 40.0), spring, bending).forms()
    counts = []
    for n in (70, 150):
        weight = rng.uniform(0, 1, (n, n)) * (rng.random((n, n)) < 0.7)
        weight[: n // 3, : n // 3] = 0
        grid = LatticeMultigrid(forms, weight, 2)
        x, y = rng.normal(0, 1, (2, 2, n, n))
        assert (x * grid(y)).sum() == pytest.approx((y * grid(x)).sum(), rel=1e-6)
        assert (x * grid(x)).sum() > 0

        class Matrix:
            def __matmul__(self, flat, weight=weight, shape=(2, n, n)):
                field = flat.reshape(shape)
                out = weight * field
                add_product(forms, field, out)
                return out.ravel()

        right = (weight * rng.normal(0, 1, (2, n, n))).ravel()
        _, steps = conjugate_gradients(
            Matrix(), right, lambda r, g=grid, n=n: g(r.reshape(2, n, n)).ravel(),
            tolerance=1e-6, most=200,
        )  # fmt: skip
        counts.append(steps)
    assert max(counts) <= 60, counts
