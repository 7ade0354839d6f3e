import numpy as np

from warpbeam.kernels.register.poor import poor_nodes, weights

NCC = np.full((9, 9, 9), 0.95)


def test_the_nodes_of_a_window_around_a_low_correlation_are_poor():
    ncc = NCC.copy()
    ncc[4, 4, 4] = 0.8
    wanted = np.zeros(ncc.shape, bool)
    wanted[3:6, 2:7, 4:5] = True
    np.testing.assert_array_equal(poor_nodes(ncc, (1, 2, 0)), wanted)


def test_volumes_that_are_equally_alike_everywhere_have_none():
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, NCC.shape)
    assert not poor_nodes(0.2 * NCC + 0.1 * noise, (1, 1, 1)).any()


def test_what_is_not_known_is_not_poor():
    ncc = NCC.copy()
    ncc[:5] = np.nan
    assert not poor_nodes(ncc, (1, 1, 1)).any()
    assert not poor_nodes(np.full_like(NCC, np.nan), (1, 1, 1)).any()


def test_matches_of_poor_nodes_weigh_more():
    poor = np.array([True, False])
    assert weights(poor)[0] > weights(poor)[1] == 1
