import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.montage.correlation import correlate


def by_loops(fixed, moving, fixed_mask, moving_mask, window):
    """Pearson's correlation of the valid overlap, shift by shift, by numpy.corrcoef."""
    low, high = window
    ncc = np.zeros([b - a for a, b in zip(low, high, strict=True)])
    overlap = np.zeros_like(ncc)
    for index in np.ndindex(*ncc.shape):
        shift = np.add(index, low)
        start = np.maximum(0, shift)
        stop = np.minimum(fixed.shape, np.add(moving.shape, shift))
        if (stop <= start).any():
            continue
        a = tuple(map(slice, start, stop))
        b = tuple(map(slice, start - shift, stop - shift))
        both = fixed_mask[a] & moving_mask[b]
        overlap[index] = both.sum()
        if overlap[index] > 2:
            ncc[index] = np.corrcoef(fixed[a][both], moving[b][both])[0, 1]
    return ncc, overlap


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.sampled_from([((9, 14), (11, 8)), ((5, 7, 6), (6, 5, 9)), ((7, 7), (7, 7))]),
    level=st.sampled_from([0.0, 250.0, -3e3]),
    masked=st.booleans(),
)
def test_agrees_with_pearson_at_every_shift(seed, shapes, level, masked):
    rng = np.random.default_rng(seed)
    fixed, moving = (rng.normal(level, 3, shape).astype(np.float32) for shape in shapes)
    masks = [rng.random(shape) > (0.2 if masked else -1) for shape in shapes]
    low = rng.integers(-12, 9, fixed.ndim)
    high = low + rng.integers(1, 7, fixed.ndim)
    found = correlate(fixed, moving, *masks, window=(low, high), min_overlap=6)
    ncc, overlap = by_loops(fixed, moving, *masks, (low, high))
    np.testing.assert_array_equal(found.overlap, overlap)
    np.testing.assert_allclose(found.ncc, np.where(overlap >= 6, ncc, 0), atol=2e-3)
    assert found.first == tuple(low)


def test_shift_has_the_stated_sign():
    rng = np.random.default_rng(0)
    canvas = rng.normal(size=(40, 60)).astype(np.float32)
    fixed, moving = canvas[:30, :40], canvas[4:34, 7:47]
    masks = np.ones((30, 40), bool)
    found = correlate(fixed, moving, masks, masks, window=((-8, -8), (9, 9)), min_overlap=99)
    best = np.unravel_index(found.ncc.argmax(), found.ncc.shape)
    assert tuple(np.add(best, found.first)) == (4, 7)
    assert found.ncc.max() == pytest.approx(1, abs=1e-4)


def test_what_the_masks_hide_does_not_matter():
    rng = np.random.default_rng(1)
    fixed, moving = rng.normal(size=(2, 20, 20)).astype(np.float32)
    mask = rng.random((20, 20)) > 0.3
    window = ((-3, -3), (4, 4))
    once = correlate(fixed, moving, mask, mask, window=window, min_overlap=20)
    fixed[~mask], moving[~mask] = 1e4, -1e4
    again = correlate(fixed, moving, mask, mask, window=window, min_overlap=20)
    np.testing.assert_array_equal(once.ncc, again.ncc)


def test_constant_patch_correlates_with_nothing():
    flat = np.full((16, 16), 7, np.float32)
    noise = np.random.default_rng(2).normal(size=(16, 16)).astype(np.float32)
    masks = np.ones((16, 16), bool)
    found = correlate(flat, noise, masks, masks, window=((-2, -2), (3, 3)), min_overlap=1)
    assert not found.ncc.any()


@pytest.mark.parametrize("blur", [0, 1.5, 3])
def test_significance_of_unrelated_patches_is_a_standard_normal(blur):
    from scipy import ndimage

    rng = np.random.default_rng(3)
    masks = np.ones((96, 96), bool)
    scores = []
    for _ in range(60):
        a, b = rng.normal(size=(2, 96, 96))
        if blur:
            a, b = (ndimage.gaussian_filter(x, blur) for x in (a, b))
        found = correlate(
            a.astype(np.float32),
            b.astype(np.float32),
            masks,
            masks,
            window=((-20, -20), (21, 21)),
            min_overlap=100,
        )
        scores.append(found.significance()[::10, ::10].ravel())
    assert np.std(scores) == pytest.approx(1, abs=0.12)


def test_bad_windows_are_refused():
    patch = np.zeros((8, 8), np.float32)
    mask = np.ones((8, 8), bool)
    with pytest.raises(ValueError, match="no shift"):
        correlate(patch, patch, mask, mask, window=((0, 0), (0, 3)), min_overlap=1)
    with pytest.raises(ValueError, match="ranks"):
        correlate(patch, patch, mask, mask, window=((0,), (3,)), min_overlap=1)
