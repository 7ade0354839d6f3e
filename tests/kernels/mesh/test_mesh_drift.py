import numpy as np

from warpbeam.kernels.mesh.drift import steady_drift


def test_jumps_are_no_drift():
    z = np.arange(100)
    jumps = np.where(z > 40, 8.0, 0.0) + np.where(z > 70, -5.0, 0.0)
    shift = np.stack([0.3 * z + jumps, -0.1 * z], axis=1)
    trend = steady_drift(z, shift)
    np.testing.assert_allclose(np.diff(trend, axis=0), [[0.3, -0.1]] * 99, atol=1e-12)


def test_missing_sections_do_not_tilt_the_trend():
    z = np.array([0, 1, 2, 5, 6, 9, 10])
    trend = steady_drift(z, np.stack([2.0 * z, 0.0 * z], axis=1))
    np.testing.assert_allclose(trend[:, 0], 2.0 * z)


def test_two_sections_have_no_trend():
    assert (steady_drift([0, 1], np.array([[0.0, 0.0], [9.0, 9.0]])) == 0).all()


def test_a_few_sections_that_jump_have_no_trend():
    rng = np.random.default_rng(3)
    shift = np.cumsum(rng.normal(0.5, 5.0, (8, 2)), axis=0)
    assert (np.diff(steady_drift(range(8), shift), axis=0) == 0).all()


def test_a_hair_moves_the_trend_by_no_more_than_a_hair():
    rng = np.random.default_rng(4)
    steps = np.where(rng.random((250, 2)) < 0.02, 6.0, rng.normal(0.2, 1.2, (250, 2)))
    hair = rng.uniform(-0.01, 0.01, steps.shape)
    slopes = [
        np.diff(steady_drift(range(251), np.cumsum(np.insert(s, 0, 0, axis=0), axis=0)), axis=0)[0]
        for s in (steps, steps + hair)
    ]
    assert np.abs(slopes[1] - slopes[0]).max() < 2e-3
    assert np.abs(slopes[0] - 0.2).max() < 2.5 * 1.2 / np.sqrt(250)


def wandering(seed, count=400):
    """A slow course of the tissue, px per section, and the steps of a stage and of sections that
    lie off by themselves."""
    rng = np.random.default_rng(seed)
    course = 0.3 + 0.3 * np.sin(2 * np.pi * np.arange(count) / 300 + rng.uniform(0, 6))
    stage = np.where(rng.random(count) < 0.02, 6.0, rng.normal(0, 0.3, count))
    return course, course + stage + np.diff(rng.normal(0, 0.8, count + 1))


def test_a_course_that_changes_slowly_is_followed():
    left = []
    for seed in range(10):
        course, steps = wandering(seed)
        shift = np.insert(np.cumsum(steps), 0, 0)
        found = np.diff(steady_drift(range(len(shift)), np.stack([shift, 0 * shift], 1))[:, 0])
        left.append(np.std(found - course) / np.std(course))
    assert np.median(left) < 0.6


def test_steps_of_the_stage_alone_are_hardly_followed():
    """What is averaged is no more than chance, so that a straight line is left."""
    bends = []
    for seed in range(10):
        steps = np.random.default_rng(seed).normal(0.2, 0.5, (300, 2))
        shift = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        found = np.diff(steady_drift(range(301), shift), axis=0)
        bends.append(found.std(axis=0))
    assert np.median(bends) < 0.5 * 0.5 / np.sqrt(70)  # of that of a mean over the reach


def test_sections_that_lie_off_do_not_hide_a_drift():
    """Steps there and back cancel, and so does their scatter."""
    rng = np.random.default_rng(6)
    shift = 0.5 * np.arange(200)[:, None] + rng.normal(0, 2.0, (200, 2))
    found = np.diff(steady_drift(range(200), shift), axis=0)
    assert np.abs(found - 0.5).max() < 0.1


def test_few_sections_are_never_sure_by_chance():
    for seed in range(200):
        steps = np.random.default_rng(seed).normal(0.5, 0.8, (6, 2))
        shift = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        drift = np.diff(steady_drift(range(7), shift), axis=0)
        scatter = 1.48 * np.median(np.abs(steps - np.median(steps, axis=0)), axis=0)
        assert (drift[:, scatter > 0.3] == 0).all()
