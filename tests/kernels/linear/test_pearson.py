import numpy as np

from warpbeam.kernels.linear.pearson import pearson


def test_it_is_numpys_correlation_of_what_both_know():
    rng = np.random.default_rng(0)
    first = rng.normal(1000, 3, (7, 9)).astype(np.float32)
    second = (0.5 * first + rng.normal(0, 1, first.shape)).astype(np.float32)
    first[:2], second[:, 5] = np.nan, np.nan
    known = np.isfinite(first) & np.isfinite(second)
    a, b = (v[known].astype(np.float64) for v in (first, second))
    np.testing.assert_allclose(pearson(first, second), np.corrcoef(a, b)[0, 1], rtol=1e-12)


def test_what_does_not_vary_or_is_not_known_has_none():
    varying, flat = np.arange(6.0), np.ones(6)
    assert np.isnan(pearson(varying, flat))
    assert np.isnan(pearson(varying, np.full(6, np.nan)))
    assert np.isnan(pearson(np.array([np.nan, 1.0]), np.array([2.0, np.nan])))
