"""Correlation of batches of patches, against loops over shifts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.flow import correlation

correlate = jax.jit(correlation.correlate, static_argnames="min_overlap")


def by_loops(fixed, moving, least):
    """The definition: Pearson's coefficient of what is known in both, shift by shift."""
    shifts = tuple(m - f + 1 for f, m in zip(fixed.shape, moving.shape, strict=True))
    out = np.full(shifts, np.nan)
    for t in np.ndindex(shifts):
        part = moving[tuple(slice(a, a + n) for a, n in zip(t, fixed.shape, strict=True))]
        known = np.isfinite(fixed) & np.isfinite(part)
        if known.sum() >= max(1, least * fixed.size):
            a, b = fixed[known].astype(float), part[known].astype(float)
            if a.std() > 0 and b.std() > 0:
                out[t] = np.corrcoef(a, b)[0, 1]
    return out


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hole=st.floats(0, 0.6),
    level=st.sampled_from([0.0, 1000.0]),
    three=st.booleans(),
)
def test_is_pearsons_coefficient_of_what_is_known(seed, hole, level, three):
    rng = np.random.default_rng(seed)
    patch, window = ((4, 5, 6), (7, 7, 9)) if three else ((8, 9), (13, 12))
    fixed = (level + 30 * rng.normal(size=patch)).astype(np.float32)
    moving = (level + 30 * rng.normal(size=window)).astype(np.float32)
    fixed[rng.random(patch) < hole] = np.nan
    moving[rng.random(window) < hole] = np.nan
    expected = by_loops(fixed, moving, 0.25)
    found = correlate(jnp.asarray(fixed)[None], jnp.asarray(moving)[None], min_overlap=0.25)
    got = np.asarray(found.ncc[0])
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    np.testing.assert_allclose(got, expected, atol=3e-4)


def test_constant_and_empty_patches_have_no_correlation():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 12, 12)).astype(np.float32)
    flat = np.stack([np.full((8, 8), 7.3), np.full((8, 8), np.nan)]).astype(np.float32)
    assert np.isnan(correlate(jnp.asarray(flat), jnp.asarray(noise), min_overlap=0.1).ncc).all()
    back = correlate(
        jnp.asarray(noise[:, :8, :8]),
        jnp.asarray(np.pad(flat, ((0, 0), (2, 2), (2, 2)), "edge")),
        min_overlap=0.1,
    )
    assert np.isnan(back.ncc).all()


def test_grain_predicts_the_scatter_of_unrelated_patches():
    rng = np.random.default_rng(1)
    smooth = np.exp(-0.5 * (np.fft.fftfreq(64) * 64 / 10) ** 2)
    spectrum = np.fft.fft2(rng.normal(size=(2, 300, 64, 64))) * smooth[:, None] * smooth
    fixed, moving = np.fft.ifft2(spectrum).real.astype(np.float32)
    found = correlate(
        jnp.asarray(fixed[:, :32, :32]), jnp.asarray(moving[:, :40, :40]), min_overlap=0.5
    )
    scores = np.asarray(found.ncc[:, 4, 4] * np.sqrt(found.overlap[:, 4, 4] / found.grain))
    assert np.mean(found.grain) > 3
    assert 0.8 < scores.std() < 1.25


def test_no_result_depends_on_the_batch():
    """Bit for bit, beside masked, empty and much brighter patches."""
    rng = np.random.default_rng(2)
    fixed = rng.normal(size=(9, 20, 20)).astype(np.float32)
    moving = rng.normal(size=(9, 30, 30)).astype(np.float32)
    fixed[3, :14] = np.nan
    fixed[4] *= 1e4
    moving[5] = np.nan
    rows = rng.permutation(9)
    results = []
    for f, m in ((fixed, moving), (fixed[rows], moving[rows])):
        results.append(correlate(jnp.asarray(f), jnp.asarray(m), min_overlap=0.25))
    other = correlate(
        jnp.asarray(np.concatenate([fixed[:1], 3 * moving[1:, :20, :20]])),
        jnp.asarray(np.concatenate([moving[:1], moving[:0:-1]])),
        min_overlap=0.25,
    )
    for whole, permuted, single in zip(results[0], results[1], other, strict=True):
        np.testing.assert_array_equal(np.asarray(whole)[rows], np.asarray(permuted))
        np.testing.assert_array_equal(np.asarray(whole)[0], np.asarray(single)[0])


def test_refuses_a_window_smaller_than_the_patch():
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(8, 7\)"):
        correlate(jnp.zeros((1, 8, 8)), jnp.zeros((1, 8, 7)), min_overlap=0.5)
