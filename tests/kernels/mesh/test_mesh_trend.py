import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.mesh.trend import slow_part


@given(st.integers(1, 30), st.integers(3, 40), st.integers(0, 9))
def test_a_line_along_z_is_wholly_slow(window, count, seed):
    rng = np.random.default_rng(seed)
    z = np.sort(rng.choice(200, count, replace=False))
    line = z[:, None, None, None] * rng.normal(size=(2, 3, 4)) + rng.normal(size=(2, 3, 4))
    got = slow_part(z, line, z, window)
    lonely = [(np.abs(z - a) <= window).sum() < 2 for a in z]
    np.testing.assert_allclose(got[~np.array(lonely)], line[~np.array(lonely)], atol=1e-6)


def test_what_jumps_from_section_to_section_is_not_slow():
    rng = np.random.default_rng(0)
    warps = rng.normal(size=(300, 2, 2, 2))
    slow = slow_part(range(300), warps, range(300), 30)
    assert slow.std() < 0.25


def test_a_part_of_the_stack_gives_the_same():
    rng = np.random.default_rng(1)
    warps = rng.normal(size=(60, 2, 3, 3))
    whole = slow_part(range(60), warps, range(20, 25), 10)
    part = slow_part(range(9, 36), warps[9:36], range(20, 25), 10)
    np.testing.assert_allclose(part, whole, atol=1e-12)
