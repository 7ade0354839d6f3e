"""Labels of blocks, joined, are the labels of the whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.segment.blocks import (
    boundary,
    edges_between,
    global_ids,
    label_block,
    neighbour_steps,
    opposite,
    relabel,
)
from warpbeam.kernels.segment.union import forest, merge, roots_of

RANK = {6: 1, 18: 2, 26: 3}


def chunked(mask, block, connectivity, seed=0):
    """Labels by blocks, with the edges merged in a random order and in several forests."""
    grid = BlockGrid(mask.shape, block)
    number = {index: k for k, index in enumerate(grid.indices())}
    local = {i: label_block(mask[grid.box(i).slices], connectivity) for i in grid.indices()}
    found = []
    for index, step in itertools.product(grid.indices(), neighbour_steps(connectivity)):
        other = tuple(i + s for i, s in zip(index, step, strict=True))
        if other in local:
            found.append(edges_between(
                boundary(local[index], step), boundary(local[other], opposite(step)),
                (number[index], number[other]), step, connectivity,
            ))  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(found))
    parts = [merge([found[k] for k in order[n::3]]) for n in range(3)]
    whole = merge(parts)
    out = np.zeros(mask.shape, np.uint64)
    for index, labels in local.items():
        out[grid.box(index).slices] = relabel(labels, number[index], whole[:, 0], whole[:, 1])
    return out


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel().astype(np.uint64), b.ravel().astype(np.uint64)]), axis=1)
    return np.unique(pairs[0]).size == pairs.shape[1] == np.unique(pairs[1]).size


@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([6, 18, 26]),
    st.sampled_from([0.1, 0.3, 0.5]),
)
def test_blocks_give_the_labels_of_the_whole(seed, shape, block, connectivity, share):
    mask = np.random.default_rng(seed).random(shape) < share
    expected = ndimage.label(mask, ndimage.generate_binary_structure(3, RANK[connectivity]))[0]
    assert same_partition(chunked(mask, block, connectivity, seed), expected)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("block", [(8, 8, 8), (5, 16, 7), (16, 4, 16), (40, 40, 40)])
def test_thin_diagonals_and_tubes(connectivity, block):
    mask = np.zeros((32, 33, 34), bool)
    k = np.arange(32)
    mask[k, k, k] = mask[k, 31 - k, k] = mask[16, k, 31 - k] = True
    mask[4, 4, :] = mask[:, 20, 9] = mask[31, 0, 33] = True
    expected, count = ndimage.label(mask, ndimage.generate_binary_structure(3, RANK[connectivity]))
    assert count > 1
    assert same_partition(chunked(mask, block, connectivity), expected)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 9), (26, 13)])
def test_each_pair_of_neighbours_is_visited_once(connectivity, count):
    steps = neighbour_steps(connectivity)
    assert len(steps) == count
    assert not {opposite(s) for s in steps} & set(steps)


def test_ids_hold_the_block_and_do_not_overflow():
    labels = np.array([[[0, 1], [2**32 - 1, 5]]], np.uint32)
    ids = global_ids(labels, 2**31)
    assert ids[0, 0].tolist() == [0, 2**63 + 1]
    assert ids[0, 1].tolist() == [2**63 + 2**32 - 1, 2**63 + 5]


def test_an_object_that_is_left_out_is_background():
    labels = np.array([[[1, 2, 0, 3]]], np.uint32)
    ids = np.array([7 << 32 | 2, 8 << 32 | 1], np.uint64)
    out = relabel(labels, 7, ids, np.array([0, 5], np.uint64))
    assert out.tolist() == [[[7 << 32 | 1, 0, 0, 7 << 32 | 3]]]


edges = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=30).map(
    lambda found: np.array(found, np.uint64).reshape(-1, 2)
)


@given(edges, st.integers(0, 5), st.integers(0, 100))
def test_forests_merge_in_any_order(found, cut, seed):
    import networkx as nx

    graph = nx.Graph()
    graph.add_edges_from(found.tolist())
    expected = {n: min(c) for c in nx.connected_components(graph) for n in c}
    whole = forest(found)
    ids = np.array(sorted(expected), np.uint64)
    assert dict(zip(ids.tolist(), roots_of(ids, whole).tolist(), strict=True)) == expected
    shuffled = np.random.default_rng(seed).permutation(found)
    parts = [forest(shuffled[:cut]), shuffled[cut : 2 * cut], forest(shuffled[2 * cut :])]
    np.testing.assert_array_equal(merge(parts), whole)
    np.testing.assert_array_equal(merge([merge(parts[1:]), parts[0]]), whole)


def test_an_id_that_no_forest_has_is_its_own_root():
    ids = np.array([3, 9], np.uint64)
    np.testing.assert_array_equal(roots_of(ids, np.zeros((0, 2), np.uint64)), ids)
    np.testing.assert_array_equal(roots_of(ids, forest(np.array([[9, 4]], np.uint64))), [3, 4])


def test_layers_that_do_not_face_one_another():
    block = np.ones((2, 3, 4), np.uint32)
    with pytest.raises(ValueError, match="do not face"):
        edges_between(boundary(block, (1, 0, 0)), boundary(block, (0, 0, -1)), (0, 1), (1, 0, 0), 6)


def test_the_layer_towards_a_neighbour():
    block = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    assert boundary(block, (1, 0, 0)).shape == (1, 3, 4)
    assert boundary(block, (1, -1, 1)).ravel().tolist() == [block[1, 0, 3]]
    assert Box.of_shape(block.shape).size == 24
