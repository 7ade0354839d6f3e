"""The flow of image pairs whose displacement is known."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import ndimage

from warpbeam.kernels.flow import deform, match
from warpbeam.kernels.flow.field import FlowSettings, flow
from warpbeam.kernels.geometry.lattice import Lattice

# Most tests share these, so that they share compiled programs.
USUAL = FlowSettings((80, 80), (20, 20), (16, 16))
SHAPE = (240, 250)
RIGID = {"coarse": 1, "steps": 0, "min_significance": 3.0}


def texture(shape, seed=0, sigma=2.0):
    """Smooth noise, mean 100 and deviation 30."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (100 + 30 * image / image.std()).astype(np.float32)


def sampled(image, displacement):
    """`image(p + u(p))`, cubic."""
    at = np.indices(displacement.shape[1:]) + displacement
    return ndimage.map_coordinates(image, at, order=3, mode="reflect").astype(np.float32)


def waves(shape, amplitude, cycles=1.0):
    """A smooth displacement field and its value anywhere."""

    def field(*at):
        phase = [2 * np.pi * cycles * a / n for a, n in zip(at, shape, strict=True)]
        return np.stack(
            [amplitude * np.sin(phase[i] + 0.5 * phase[i - 1] + i) for i in range(len(shape))]
        )

    return field, field(*np.indices(shape))


def errors(found, truth):
    return np.linalg.norm(found.vectors - truth(*found.lattice.nodes()), axis=0)


def point(shape, *at):
    image = np.zeros(shape, np.float32)
    image[at] = 255
    return image


def test_one_bright_pixel():
    """SOFIMA's own case: (60, 60) and (70, 53), patch 80, step 40."""
    moving, fixed = point((120, 120), 60, 60), point((120, 120), 70, 53)
    settings = FlowSettings((80, 80), (40, 40), (20, 20), **RIGID)
    found = flow(fixed, moving, settings)
    assert found.vectors.shape == (2, 2, 2)
    np.testing.assert_allclose(found.vectors[0], -10, atol=1e-4)
    np.testing.assert_allclose(found.vectors[1], 7, atol=1e-4)
    assert np.isinf(found.peak_ratio).all()
    fixed[54, 68] = 255
    mask = np.ones((120, 120), bool)
    mask[:55, :70] = False
    masked = flow(fixed, moving, settings, fixed_mask=mask)
    np.testing.assert_allclose(masked.vectors, found.vectors, atol=1e-4)
    assert np.isinf(masked.peak_ratio).all()


def test_one_bright_voxel():
    """SOFIMA's own case in three dimensions."""
    shape = (50, 100, 100)
    moving, fixed = point(shape, 25, 50, 50), point(shape, 22, 45, 54)
    settings = FlowSettings((40, 80, 80), (10, 10, 10), (8, 8, 8), **RIGID)
    found = flow(fixed, moving, settings)
    assert found.vectors.shape == (3, 2, 3, 3)
    for component, expected in zip(found.vectors, (3, 5, -4), strict=True):
        np.testing.assert_allclose(component, expected, atol=1e-3)


def test_targeting():
    """SOFIMA's own case: features 50 px apart are out of reach, unless the search starts there."""
    moving, fixed = point((120, 120), 50, 55), point((120, 120), 100, 100)
    settings = FlowSettings((80, 80), (40, 40), (20, 20), **RIGID)
    assert np.isnan(flow(fixed, moving, settings).vectors).all()
    start = np.full((2, 2, 2), -40, np.float32)
    found = flow(fixed, moving, settings, start=start)
    assert np.isnan(found.vectors[:, 0, 0]).all()
    np.testing.assert_allclose(found.vectors[:, 1, 1], (-50, -45), atol=1e-3)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.25, -5.5), (-7.7, 2.1)])
@pytest.mark.parametrize("steps", [0, 1])
def test_shift_between_pixels(shift, steps):
    moving = texture(SHAPE)
    fixed = sampled(moving, np.broadcast_to(np.array(shift)[:, None, None], (2, *SHAPE)))
    settings = USUAL if steps else FlowSettings((48, 48), (24, 24), (10, 10), **RIGID)
    found = flow(0.7 * fixed + 20, moving, settings)
    gap = np.abs(found.vectors - np.reshape(shift, (2, 1, 1)))[:, 1:-1, 1:-1]
    assert np.isfinite(gap).all()
    assert gap.max() < (0.08 if steps == 0 else 0.02)


def test_smooth_warp_with_noise_and_other_contrast():
    shape = SHAPE
    field, dense = waves(shape, 3.0)
    moving = texture(shape, seed=3)
    fixed = 255 * (np.clip(sampled(moving, dense), 0, 255) / 255) ** 1.3 * 0.75 + 25
    rng = np.random.default_rng(1)
    noisy = [(im + rng.normal(0, 8, shape)).astype(np.float32) for im in (fixed, moving)]
    found = flow(noisy[0], noisy[1], USUAL)
    gap = errors(found, field)
    assert np.isfinite(gap).mean() > 0.97
    assert np.nanmedian(gap) < 0.12
    assert np.nanquantile(gap, 0.95) < 0.4


def test_three_dimensional_warp():
    shape = (48, 56, 64)
    field, dense = waves(shape, 1.5, cycles=0.5)
    moving = texture(shape, seed=5, sigma=1.5)
    found = flow(
        sampled(moving, dense), moving, FlowSettings((24, 24, 24), (8, 8, 8), (4, 4, 4), coarse=2)
    )
    gap = errors(found, field)
    assert found.vectors.shape == (3, 4, 5, 6)
    assert np.isfinite(gap).mean() > 0.97
    assert np.nanmedian(gap) < 0.1


def test_masked_and_nan_pixels_do_not_count():
    shape = SHAPE
    field, dense = waves(shape, 3.0)
    moving = texture(shape, seed=7)
    fixed = sampled(moving, dense)
    rng = np.random.default_rng(0)
    holes = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 6, 6))
    masks = [h < np.quantile(h, 0.9) for h in holes]
    settings = USUAL
    results = []
    for junk in (-1e4, 3e4, np.nan):
        images = [
            np.where(m, im, np.float32(junk)) for m, im in zip(masks, (fixed, moving), strict=True)
        ]
        keep = [None, None] if np.isnan(junk) else masks
        results.append(
            flow(images[0], images[1], settings, fixed_mask=keep[0], moving_mask=keep[1])
        )
    for other in results[1:]:
        np.testing.assert_array_equal(other.vectors, results[0].vectors)
        np.testing.assert_array_equal(other.peak_ratio, results[0].peak_ratio)
    gap = errors(results[0], field)
    assert np.isfinite(gap).all()
    assert np.median(gap) < 0.08
    assert np.quantile(gap, 0.95) < 0.4


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("kind", ["constant", "black", "nan", "masked", "one constant"])
def test_nothing_to_see_gives_no_vector(kind, steps):
    image = texture(SHAPE)
    mask = None
    fixed = {"black": 0.0, "nan": np.nan}.get(kind, 113.7) * np.ones_like(image)
    moving = image if kind == "one constant" else fixed
    if kind == "masked":
        fixed = moving = image
        mask = np.zeros(image.shape, bool)
    settings = replace(USUAL, steps=steps)
    found = flow(fixed, moving, settings, fixed_mask=mask)
    for values in (found.vectors, found.ncc, found.peak_ratio, found.sharpness):
        assert np.isnan(values).all()


def test_unrelated_images_give_hardly_a_vector():
    found = flow(texture(SHAPE, 1), texture(SHAPE, 2), USUAL)
    assert np.isfinite(found.ncc).mean() < 0.05
    assert (found.peak_ratio >= 1.6).mean() < 0.005


def test_a_torn_half_does_not_pull_at_the_other():
    moving = texture(SHAPE, seed=4)
    fixed = np.roll(moving, (-3, 4), (0, 1))
    fixed[:, 150:] = texture((SHAPE[0], SHAPE[1] - 150), seed=9)
    found = flow(fixed, moving, USUAL)
    for limit, tolerance in ((75, 0.05), (110, 0.3)):
        left = found.vectors[:, :, found.lattice.along(1) < limit]
        np.testing.assert_allclose(left[0], 3, atol=tolerance)
        np.testing.assert_allclose(left[1], -4, atol=tolerance)
    assert np.isnan(found.vectors[:, :, -1]).mean() > 0.8


def test_selection_leaves_the_selected_rigid_vectors_as_they_are():
    moving = texture(SHAPE, seed=2)
    fixed = np.roll(moving, (2, -3), (0, 1))
    settings = FlowSettings((48, 48), (24, 24), (10, 10), **RIGID)
    whole = flow(fixed, moving, settings)
    chosen = np.random.default_rng(0).random(whole.lattice.shape) < 0.4
    part = flow(fixed, moving, settings, selection=chosen)
    np.testing.assert_array_equal(part.vectors[:, chosen], whole.vectors[:, chosen])
    assert np.isnan(part.vectors[:, ~chosen]).all()


def test_no_vector_depends_on_the_batch():
    rng = np.random.default_rng(3)
    fixed, moving = texture((150, 150), 1), texture((150, 150), 1, 2.5)
    fixed[40:70, 20:90] = np.nan
    moving[100:, 80:120] = np.nan
    settings = match.MatchSettings((20, 24), (6, 5))
    corners = rng.integers(-10, 140, (37, 2))
    starts = rng.integers(-4, 5, (37, 2))
    images = [jax.numpy.asarray(im) for im in (fixed, moving)]
    whole = match.match(*images, settings, corners=corners, starts=starts)
    names = ("shift", "ncc", "ratio", "sharpness", "significance")
    for order in (rng.permutation(37), np.array([30]), np.arange(5, 20)):
        part = match.match(*images, settings, corners=corners[order], starts=starts[order])
        for name in names:
            np.testing.assert_array_equal(getattr(whole, name)[order], getattr(part, name), name)
    other = match.match(*images, settings, corners=corners, starts=starts, batch=5)
    for name in names:
        np.testing.assert_allclose(getattr(whole, name), getattr(other, name), rtol=1e-3)


def test_leading_axes_are_measured_one_by_one():
    moving = np.stack([texture(SHAPE, s) for s in range(4)]).reshape(2, 2, *SHAPE)
    fixed = np.roll(moving, (1, 2), (-2, -1))
    settings = USUAL
    found = flow(fixed, moving, settings)
    assert found.vectors.shape == (2, 2, 2, *found.lattice.shape)
    one = flow(fixed[1, 0], moving[1, 0], settings)
    np.testing.assert_array_equal(found.vectors[1, 0], one.vectors)
    np.testing.assert_array_equal(found.sharpness[1, 0], one.sharpness)


def test_images_of_nearly_the_same_size_share_their_programs():
    settings = USUAL
    for n in (230, 241, 256):
        image = texture((n, n))
        flow(image, image, settings, lattice=Lattice((30.0, 30.0), (24.0, 24.0), (6, 6)))
        counts = [match._match_batch._cache_size(), deform._deformed._cache_size()]
        first = counts if n == 230 else first
    assert counts == first


def test_lattice_covers_the_image_and_scales():
    lattice = Lattice.of_patches((1024, 1000), (160, 80), (40, 20))
    assert lattice.shape == (22, 47)
    assert lattice.origin == (79.5, 39.5)
    fine = lattice.nodes()[:, 3, 5]
    coarse = lattice.at_scale(4).nodes()[:, 3, 5]
    np.testing.assert_allclose(coarse * 4 + 1.5, fine)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch": (300, 300)}, "does not fit"),
        ({"stride": (0, 20)}, "must be >= 1"),
        ({"coarse": 3}, "power of two"),
        ({"coarse": 1, "finest": 2}, "coarser"),
        ({"patch": (40, 40, 40)}, "ranks differ"),
    ],
)
def test_bad_settings(change, words):
    image = texture((120, 120))
    with pytest.raises(ValueError, match=words):
        flow(
            image,
            image,
            FlowSettings(**{"patch": (40, 40), "stride": (20, 20), "search": (6, 6)} | change),
        )


def test_bad_shapes():
    image = texture((120, 120))
    settings = FlowSettings((40, 40), (20, 20), (6, 6))
    with pytest.raises(ValueError, match=r"moving_mask.*\(120, 119\)"):
        flow(image, image, settings, moving_mask=np.ones((120, 119), bool))
    with pytest.raises(ValueError, match="selection"):
        flow(image, image, settings, selection=np.ones((4, 4), bool))
    with pytest.raises(ValueError, match="do not fit"):
        flow(np.stack([image] * 2), image, settings)


def test_patches_at_every_second_node_are_enough():
    moving = texture(SHAPE)
    truth, dense = waves(SHAPE, 4.0)
    fixed = sampled(moving, dense)
    found, every = (flow(fixed, moving, replace(USUAL, every=n)) for n in (2, 1))
    apart = errors(found, truth)
    assert np.isfinite(apart).all()
    assert np.abs(apart - errors(every, truth)).max() < 0.05
    assert np.isfinite(found.peak_ratio).all()


def test_peaks_alone_need_a_patch_at_every_node():
    with pytest.raises(ValueError, match="every"):
        FlowSettings((48, 48), (16, 16), (16, 16), steps=0, every=2)


def test_peaks_alone_are_those_of_the_full_image():
    """Nothing refines what a reduced image would tell of points."""
    assert FlowSettings((80, 80), (40, 40), (40, 40), steps=0).coarse_level == 1
    rng = np.random.default_rng(0)
    moving = np.zeros((300, 320), np.float32)
    moving[rng.integers(0, 300, 150), rng.integers(0, 320, 150)] = 1
    fixed = np.roll(moving, (-10, 7), (0, 1))
    found = flow(fixed, moving, FlowSettings((80, 80), (40, 40), (20, 20), steps=0))
    known = np.isfinite(found.vectors).all(axis=0)
    assert known.mean() > 0.9
    np.testing.assert_allclose(found.vectors[:, known].T, [[10, -7]] * known.sum(), atol=0.05)


@pytest.mark.parametrize("name", ["fixed_mask", "moving_mask", "selection"])
def test_masks_that_are_not_boolean_are_refused(name):
    image = texture(SHAPE)
    mask = np.full(SHAPE, 255, np.uint8)
    if name == "selection":
        mask = np.ones(Lattice.of_patches(SHAPE, USUAL.patch, USUAL.stride).shape, np.uint8)
    with pytest.raises(ValueError, match=f"{name} is uint8"):
        flow.__wrapped__(image, image, USUAL, **{name: mask})
