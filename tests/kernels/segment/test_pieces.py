"""Pieces of regions, merged region by region, are the components of the whole graph."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.kernels.segment.pieces import Pieces, block_pieces, merge_pieces, settled
from warpbeam.kernels.segment.traits import Traits, measure


def numbered(blocks, each):
    """Ids of `each` objects in each block."""
    return np.array([b << 32 | k for b in range(blocks) for k in range(1, each + 1)], np.uint64)


def sizes(ids):
    """Traits by which objects can be told: their place along z is that in the list of ids."""
    n = np.arange(len(ids))
    box = np.repeat(n[:, None], 3, axis=1)
    return Traits(n + 1, box, box + 1, box * (n + 1)[:, None])


def climb(ids, edges, blocks, fan_out):
    """All levels of regions along a line of blocks: what is finished, the final root of each id,
    and how many levels there were."""
    block, traits = (ids >> np.uint64(32)).astype(int), sizes(ids)
    parts, finished, tables, levels = {}, [], [], 0
    for k in range(blocks):
        mine = block == k
        touched = np.isin(edges, ids[mine]).any(axis=1)
        parts[k] = block_pieces(ids[mine], traits.take(mine), edges[touched])
    while levels == 0 or len(parts) > 1:
        levels, merged = levels + 1, {}
        for region in sorted({k // fan_out for k in parts}):
            children = [parts[k] for k in parts if k // fan_out == region]
            whole = len(parts) <= fan_out
            merged[region] = merge_pieces(children[::-1], whole=whole)
        parts = {k: m.open for k, m in merged.items()}
        finished += [m.finished for m in merged.values()]
        tables.append(np.concatenate([m.table for m in merged.values()]))
    roots = dict(zip(ids.tolist(), ids.tolist(), strict=True))
    for table in tables:
        step = dict(table.tolist())
        roots = {k: step.get(v, v) for k, v in roots.items()}
    return finished, roots, levels


@given(st.integers(1, 9), st.integers(1, 4), st.integers(2, 4), st.data())
def test_regions_give_the_components_of_the_graph(blocks, each, fan_out, data):
    ids = numbered(blocks, each)
    pairs = data.draw(st.lists(st.tuples(*[st.sampled_from(ids.tolist())] * 2), max_size=25))
    edges = np.array([p for p in pairs if p[0] != p[1]], np.uint64).reshape(-1, 2)
    finished, roots, _ = climb(ids, edges, blocks, fan_out)
    graph = nx.Graph()
    graph.add_nodes_from(ids.tolist())
    graph.add_edges_from(edges.tolist())
    expected = {n: min(c) for c in nx.connected_components(graph) for n in c}
    assert roots == expected
    found = {int(i): t for p in finished for i, t in zip(p.ids, zip(*p.traits, strict=True),
                                                         strict=True)}  # fmt: skip
    assert set(found) == set(expected.values())  # each object is finished once
    own = sizes(ids)
    for component in nx.connected_components(graph):
        members = np.isin(ids, list(component))
        voxels, low, high, total = found[min(component)]
        assert voxels == own.voxels[members].sum()
        np.testing.assert_array_equal(low, own.low[members].min(axis=0))
        np.testing.assert_array_equal(high, own.high[members].max(axis=0))
        np.testing.assert_array_equal(total, own.total[members].sum(axis=0))


@pytest.mark.parametrize("fan_out", [2, 8])
def test_a_long_path_takes_few_levels(fan_out):
    blocks = 2000
    ids = numbered(blocks, 1)
    traits = sizes(ids)
    order = np.random.default_rng(0).permutation(blocks)  # neighbours on the path lie anywhere
    edges = np.stack([ids[order[:-1]], ids[order[1:]]], axis=1)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0])]
    start = np.searchsorted(both[:, 0], ids)
    parts = [
        Pieces(ids[k : k + 1], traits.take(np.array([k])), both[a:b][:, [0, 1, 0]])
        for k, (a, b) in enumerate(zip(start, [*start[1:], len(both)], strict=True))
    ]
    levels = 0
    while len(parts) > 1:
        levels += 1
        parts = [
            merge_pieces(parts[k : k + fan_out]).open if len(parts) > fan_out else
            merge_pieces(parts).finished
            for k in range(0, len(parts), fan_out)
        ]  # fmt: skip
    assert 2 * levels <= 2 * np.ceil(np.log2(blocks))  # up and down
    assert parts[0].ids.tolist() == [1]
    assert parts[0].traits.voxels.tolist() == [traits.voxels.sum()]


def test_an_edge_to_a_block_that_is_missing_keeps_nothing_open():
    ids = numbered(2, 1)
    lone = block_pieces(ids[:1], sizes(ids).take(np.array([0])), ids[None])
    assert merge_pieces([lone]).open.ids.tolist() == [1]
    last = merge_pieces([lone], whole=True)
    assert last.finished.ids.tolist() == [1]
    assert not last.open.ids.size
    assert not last.open.edges.size


def test_what_became_of_the_pieces_is_handed_down():
    table = np.array([[3, 3], [5, 3], [8, 8], [9, 7]], np.uint64)
    final = settled(table, np.array([3, 7], np.uint64), np.array([40, 0], np.uint64))
    assert final.tolist() == [[3, 40], [5, 40], [8, 8], [9, 0]]
    np.testing.assert_array_equal(settled(table, table[:0, 0], table[:0, 0]), table)


@given(st.integers(0, 1000), st.tuples(*[st.integers(1, 6)] * 3))
def test_traits_of_blocks_are_those_of_numpy(seed, shape):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint32)
    found = measure(labels, (10, 20, 30))
    assert len(found.voxels) == labels.max(initial=0)
    for k in range(1, int(labels.max()) + 1):
        place = np.argwhere(labels == k) + np.array([10, 20, 30])
        assert found.voxels[k - 1] == len(place)
        if len(place):
            assert found.low[k - 1].tolist() == place.min(axis=0).tolist()
            assert found.high[k - 1].tolist() == (place.max(axis=0) + 1).tolist()
            assert found.total[k - 1].tolist() == place.sum(axis=0).tolist()
            np.testing.assert_allclose(found.centroid[k - 1], place.mean(axis=0))
