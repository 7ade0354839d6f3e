import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from warpbeam.kernels.montage.null import accept, null_pairs, rolled
from warpbeam.kernels.montage.pair import Strip, coarse_peak


@given(
    shapes=st.lists(st.sampled_from([(512, 67), (67, 512), (500, 60)]), min_size=1, max_size=300),
    seed=st.integers(0, 99),
)
def test_null_pairs_do_not_match(shapes, seed):
    pairs = null_pairs(shapes, seed=seed)
    assert 64 <= len(pairs) <= 256
    assert pairs == null_pairs(shapes, seed=seed)
    assert len(set(pairs)) == len(pairs)
    for pair in pairs:
        assert np.argmin(shapes[pair.fixed_link]) == np.argmin(shapes[pair.moving_link])
        assert pair.fixed_link != pair.moving_link or 0.3 <= pair.roll <= 0.7
    if len(shapes) <= 256:
        assert {pair.fixed_link for pair in pairs} == set(range(len(shapes)))


def test_no_links_no_null():
    assert null_pairs([], seed=0) == []
    verdict = accept(np.empty(0), np.empty(0))
    assert verdict.accepted.shape == (0,)


def test_rolling_keeps_every_voxel_and_its_mask_together():
    strip = Strip(np.arange(60.0).reshape(20, 3), (1, 2), np.arange(60).reshape(20, 3) > 9)
    turned = rolled(strip, 0.5)
    assert turned.voxels[10, 0] == 0
    np.testing.assert_array_equal(turned.voxels > 9, turned.mask)
    assert turned.origin == strip.origin


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), location=st.floats(1, 4), scale=st.floats(0.2, 0.8))
def test_parameters_and_p_values_are_those_of_the_gumbel_distribution(seed, location, scale):
    law = stats.gumbel_r(location, scale)
    null = law.rvs(4000, random_state=seed)
    scores = np.linspace(1, 12, 30)
    verdict = accept(scores, null)
    assert verdict.location == pytest.approx(location, abs=0.1)
    assert verdict.scale == pytest.approx(scale, rel=0.1)
    same = stats.gumbel_r(verdict.location, verdict.scale)
    np.testing.assert_allclose(verdict.p_value, same.sf(scores), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(verdict.accepted, scores >= verdict.threshold - 1e-9)


def test_false_links_are_rare_and_true_ones_kept():
    rng = np.random.default_rng(0)
    wrong = kept = 0
    for _ in range(100):
        null = stats.gumbel_r(2.4, 0.4).rvs(100, random_state=rng)
        blank = stats.gumbel_r(2.4, 0.4).rvs(30, random_state=rng)
        good = rng.normal(12, 1, 80)
        accepted = accept(np.concatenate([blank, good]), null).accepted
        wrong += accepted[:30].sum()
        kept += accepted[30:].sum()
    assert wrong <= 10
    assert kept == 8000


def test_matches_among_the_null_do_not_raise_the_threshold():
    null = stats.gumbel_r(2.4, 0.4).rvs(100, random_state=1)
    clean = accept(np.array([9.0]), null)
    dirty = accept(np.array([9.0]), np.append(null, [19.0, 21.0, 16.0, 24.0, 17.0]))
    assert dirty.accepted.all()
    assert dirty.threshold == pytest.approx(clean.threshold, abs=0.1)


def test_unmeasured_links_are_never_accepted():
    null = stats.gumbel_r(2.4, 0.4).rvs(64, random_state=0)
    verdict = accept(np.array([20.0, 0.0, np.nan]), np.append(null, [np.nan, 0.0]))
    assert verdict.accepted.tolist() == [True, False, False]
    assert verdict.location == pytest.approx(accept(np.array([20.0]), null).location)


def test_without_a_null_the_normal_law_decides():
    verdict = accept(np.array([3.0, 4.0, 9.0]), np.zeros(40))
    assert verdict.accepted.tolist() == [False, False, True]


def texture(rng, shape):
    image = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    return 100 + 20 * image / image.std()


def test_a_mosaic_of_two_by_two_tiles_is_judged():
    rng = np.random.default_rng(3)
    strips = []
    for blank in (False, False, True, False):
        content = np.full((160, 40), 100.0) if blank else texture(rng, (160, 40))
        strips.append([Strip(content + 8 * rng.normal(size=(160, 40)), (0, 0)) for _ in range(2)])
    search = {"offset": (0, 0), "search": (10, 10)}
    scores = [coarse_peak(a, b, **search).score for a, b in strips]
    null = [
        coarse_peak(
            strips[p.fixed_link][0], rolled(strips[p.moving_link][1], p.roll), **search
        ).score
        for p in null_pairs([(160, 40)] * 4, seed=1)
    ]
    verdict = accept(np.array(scores), np.array(null))
    assert verdict.accepted.tolist() == [True, True, False, True]
