"""Points matched across an overlap: right in both tiles, whichever way the overlap lies."""

import numpy as np
import pytest
from phantoms import Waves, shifted

from warpbeam.kernels.flow.clean import CleanSettings
from warpbeam.kernels.flow.field import FlowSettings
from warpbeam.kernels.flow.overlap import match_overlap, overlap
from warpbeam.kernels.geometry.box import Box

SETTINGS = FlowSettings((48, 48), (20, 20), (10, 10), coarse=2, finest=2)
SHAPE = (220, 220)


def tiles(matrices, moves=(None, None), seed=0):
    """Images of one truth under matrices, each moved by a function of its own voxels."""
    truth = Waves.random(seed, wavelengths=(8, 60), count=60)
    grid = np.stack(np.mgrid[: SHAPE[0], : SHAPE[1]], -1).astype(float)
    images = []
    for matrix, move in zip(matrices, moves, strict=True):
        at = grid if move is None else grid + move(grid)
        images.append(truth.at(at @ matrix[:2, :2].T + matrix[:2, 2]).astype(np.float32))
    noise = np.random.default_rng(1)
    return [image + noise.normal(0, 15, SHAPE).astype(np.float32) for image in images]


def matched(images, matrices, masks=(None, None), settings=SETTINGS):
    between = np.linalg.inv(matrices[1]) @ matrices[0]
    found = overlap((SHAPE, SHAPE), between, settings)
    parts = [
        (image[box.slices], None if mask is None else mask[box.slices])
        for image, box, mask in zip(images, (found.fixed, found.moving), masks, strict=True)
    ]
    return match_overlap(found, *parts, settings, CleanSettings())


def world(matrix, points, move=None):
    at = points if move is None else points + move(points)
    return at @ matrix[:2, :2].T + matrix[:2, 2]


def bulge(points):
    return np.stack([2 * np.sin(points[..., 1] / 30), 2 * np.cos(points[..., 0] / 35)], axis=-1)


@pytest.mark.parametrize("at", [(0.4, 130.7), (128.3, -1.2), (60.0, 70.0)])
def test_points_of_both_tiles_show_the_same(at):
    matrices = [shifted(0, 0), shifted(*at)]
    found = matched(tiles(matrices, (None, bulge)), matrices)
    assert (found.p % 20 == 0).all()
    assert len(found.p) > 0.6 * found.nodes
    apart = world(matrices[0], found.p) - world(matrices[1], found.q, bulge)
    assert np.median(np.linalg.norm(apart, axis=1)) < 0.2
    assert np.percentile(np.linalg.norm(apart, axis=1), 95) < 0.6


def test_a_turned_tile_needs_no_resampling():
    matrices = [shifted(0, 0), shifted(2.0, 120.0)]
    angle = np.deg2rad(1.5)
    matrices[1][:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    found = matched(tiles(matrices), matrices)
    assert len(found.p) > 20
    apart = world(matrices[0], found.p) - world(matrices[1], found.q)
    assert np.percentile(np.linalg.norm(apart, axis=1), 90) < 0.3


def test_both_ways_of_lying_give_the_same():
    """Exchanging y and x of everything exchanges y and x of the result, to the bit."""
    upright, lying = [shifted(0, 0), shifted(1, 120)], [shifted(0, 0), shifted(120, 1)]
    images = tiles(upright)
    one = matched([image.T.copy() for image in images], lying)
    two = matched(images, upright)
    order = np.lexsort(two.p.T)
    np.testing.assert_array_equal(one.p[:, ::-1], two.p[order])
    np.testing.assert_array_equal(one.q[:, ::-1], two.q[order])


def test_masked_voxels_do_not_count():
    matrices = [shifted(0, 0), shifted(0, 120)]
    images = tiles(matrices)
    mask = np.ones(SHAPE, bool)
    mask[80:150] = False
    images[1][~mask] = np.random.default_rng(0).normal(1000, 200, (~mask).sum())
    found = matched(images, matrices, (None, mask))
    assert not ((found.p[:, 0] > 100) & (found.p[:, 0] < 130)).any()
    apart = world(matrices[0], found.p) - world(matrices[1], found.q)
    assert np.abs(apart).max() < 0.6


def test_unrelated_tiles_match_nowhere():
    matrices = [shifted(0, 0), shifted(0, 120)]
    images = [tiles(matrices, seed=seed)[0] for seed in (0, 1)]
    found = matched(images, matrices)
    assert len(found.p) < 0.1 * found.nodes


def test_tiles_apart_have_no_overlap():
    assert overlap((SHAPE, SHAPE), shifted(0, 300), SETTINGS) is None
    found = overlap((SHAPE, SHAPE), shifted(0, -200), SETTINGS)
    assert found.common == Box((0, 200), (220, 220))
    assert found.fixed.start == (0, 180)
    assert found.moving.start == (0, 0)
