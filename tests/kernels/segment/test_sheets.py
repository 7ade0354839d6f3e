"""Evidence of sheets: eigenvalues beside NumPy's, closed forms, and blocks beside the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from warpbeam.kernels.segment.sheets import Traces, halo, traces, weights


@pytest.mark.parametrize("shape", [(17, 19), (9, 11, 13)])
def test_bend_is_the_largest_eigenvalue(shape):
    image = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    rank, sigma = len(shape), (1.5, 1.0, 2.0)[: len(shape)]
    hessian = np.empty((*shape, rank, rank))
    for i in range(rank):
        for j in range(rank):
            order = np.eye(rank, dtype=int)[i] + np.eye(rank, dtype=int)[j]
            hessian[..., i, j] = sigma[i] * sigma[j] * ndimage.gaussian_filter(
                image.astype(np.float64), sigma, order=order, mode="nearest"
            )  # fmt: skip
    expected = np.linalg.eigvalsh(hessian)[..., -1]
    np.testing.assert_allclose(traces(image, sigma, dark=True).bend, expected, atol=2e-6)


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 0), (1, 1, 0), (1, -1, 1)])
def test_a_dark_sheet_shows_however_it_lies(normal):
    """A sheet of Gaussian profile, smoothed: -a exp(-d²/2s²) bends by a s / S³ in its middle,
    S² = s² + sigma²; times sigma²."""
    at = np.stack(np.mgrid[-16:17, -16:17, -16:17])
    distance = np.tensordot(np.array(normal) / np.linalg.norm(normal), at, 1)
    s, sigma, depth = 2.0, 1.5, 50.0
    grey = 100 - depth * np.exp(-(distance**2) / (2 * s**2))
    found = traces(grey, (sigma,) * 3, dark=True)
    whole = np.hypot(s, sigma)
    assert found.bend[16, 16, 16] == pytest.approx(sigma**2 * depth * s / whole**3, rel=0.02)
    assert found.darkness[16, 16, 16] == pytest.approx(depth * s / whole - 100, rel=0.02)
    bright = traces(200 - grey, (sigma,) * 3, dark=False)
    np.testing.assert_allclose(bright.bend, found.bend, atol=0.1)


def test_a_bright_sheet_is_no_dark_one():
    grey = np.zeros((15, 15))
    grey[7] = 100
    assert traces(grey, (1.5, 1.5), dark=True).bend[7, 7] < 1e-3
    assert traces(grey, (1.5, 1.5), dark=False).bend[7, 7] > 10


@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-1000, 1000))
def test_evidence_does_not_depend_on_contrast(seed, gain, offset):
    image = np.random.default_rng(seed).normal(0, 1, (12, 12))

    def evidence(values):
        found = traces(values, (1.5, 1.5), dark=True)
        return weights([found]).evidence(found)

    plain = evidence(image)
    assert plain.mean() == pytest.approx(0, abs=1e-5)
    assert plain.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(evidence(gain * image + offset), plain, atol=0.02)


def test_a_block_with_its_halo_is_the_whole():
    image = np.random.default_rng(1).normal(0, 1, (30, 40, 30))
    sigma = (1.0, 1.5, 1.5)
    whole = traces(image, sigma, dark=True)
    z, y, x = halo(sigma)
    part = traces(image[10 - z :, : 20 + y, 10 - x : 20 + x], sigma, dark=True)
    for got, expected in zip(part, whole, strict=True):
        np.testing.assert_allclose(got[z:, :20, x : x + 10], expected[10:, :20, 10:20], atol=1e-6)


def test_a_constant_image_says_nothing():
    found = traces(np.full((8, 8, 8), 7.0), (1.5,) * 3, dark=True)
    assert (weights([found]).evidence(found) == 0).all()


def test_samples_count_as_one_image():
    parts = [Traces(np.array([0.0, 1.0], np.float32), np.array([2.0, 2.0], np.float32)),
             Traces(np.array([4.0], np.float32), np.array([5.0], np.float32))]  # fmt: skip
    together = Traces(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert weights(parts) == weights([together])


def test_what_is_not_finite_counts_as_the_mean():
    image = np.random.default_rng(2).normal(5, 1, (16, 16))
    image[3, 4] = np.nan
    filled = np.where(np.isnan(image), np.float32(np.nanmean(image.astype(np.float32))), image)
    for got, expected in zip(
        traces(image, (1.0, 1.0), dark=True), traces(filled, (1.0, 1.0), dark=True), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)
