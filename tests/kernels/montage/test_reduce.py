"""Links on reduced strips lie where those on full ones do."""

import numpy as np
import pytest
from phantoms import Waves, shifted

from warpbeam.kernels.montage.pair import Strip, measure_link
from warpbeam.kernels.montage.reduce import in_full, reduced


def test_means_of_whole_blocks_only():
    voxels = np.arange(7 * 9, dtype=np.uint16).reshape(7, 9)
    strip = reduced(Strip(voxels, (3, 4)), (2, 2))
    assert strip.origin == (2, 2)
    np.testing.assert_array_equal(strip.voxels[0], (voxels[1:3, 0:8].reshape(2, 4, 2).mean((0, 2))))
    assert strip.voxels.shape == (3, 4)
    assert reduced(Strip(voxels, (3, 4)), (1, 1)).voxels is voxels


def test_a_masked_voxel_spoils_its_block():
    mask = np.ones((8, 8), bool)
    mask[2, 5] = False
    strip = reduced(Strip(np.ones((8, 8), np.uint8), (0, 0), mask), (2, 2))
    assert (~strip.mask).sum() == 1
    assert not strip.mask[1, 2]


@pytest.mark.parametrize("factor", [(1, 1), (2, 2), (4, 4), (1, 2)])
def test_the_same_link(factor):
    truth = Waves.random(0, wavelengths=(16, 60))
    a, b = (truth.image((160, 90), shifted(*at)) for at in ((0, 0), (3.3, 40.8)))
    strips = [Strip(image.astype(np.float32), (0, 0)) for image in (a, b)]
    small = [reduced(s, factor) for s in strips]
    offset = [o / k for o, k in zip((0.0, 44.0), factor, strict=True)]
    search = [-(-12 // k) for k in factor]
    link = in_full(measure_link(*small, offset=offset, search=search, blocks=1), factor)
    np.testing.assert_allclose(link.fixed_points - link.moving_points, [[3.3, 40.8]], atol=0.05)
    assert 0 <= link.fixed_points[0, 1] <= 90
    assert 0.5 * 157 * 49 < link.overlap < 1.05 * 157 * 49
