import itertools

import numpy as np
import pytest

from warpbeam.kernels.montage.contrast import local_mean


def by_loop(image, mask, sigma):
    radius = int(np.ceil(3.5 * sigma))
    out = np.zeros(image.shape)
    for at in np.ndindex(image.shape):
        total = weight = 0.0
        for step in itertools.product(range(-radius, radius + 1), repeat=image.ndim):
            there = tuple(a + s for a, s in zip(at, step, strict=True))
            if all(0 <= t < n for t, n in zip(there, image.shape, strict=True)) and mask[there]:
                share = np.exp(-0.5 * np.square(step).sum() / sigma**2)
                total, weight = total + share * image[there], weight + share
        out[at] = total / weight if weight > 0 else 0
    return out


@pytest.mark.parametrize("shape", [(9, 14), (3, 11), (5, 4, 6)])
@pytest.mark.parametrize("whole", [True, False])
def test_the_mean_around_a_voxel_is_that_of_its_valid_neighbours(shape, whole):
    rng = np.random.default_rng(len(shape))
    image = rng.normal(50, 20, shape).astype(np.float32)
    mask = np.ones(shape, bool) if whole else rng.uniform(size=shape) > 0.4
    found = local_mean(image, mask, 0.8)
    near = by_loop(mask.astype(float), np.ones(shape, bool), 0.8) > 1e-3
    np.testing.assert_allclose(found[near], by_loop(image, mask, 0.8)[near], rtol=2e-4)
