"""Joining pieces: a chain worked out by hand, a slow version of the rule, and laws of sums."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpbeam.kernels.segment.agglomerate import (
    Contacts,
    Surfaces,
    added,
    agglomerate,
    contacts,
    remaining,
    renamed,
    surfaces,
)
from warpbeam.kernels.segment.union import merge, roots_of

LABELS = hnp.arrays(np.uint32, (4, 5, 6), elements=st.integers(0, 12))
# eighths: sums are exact in any order
EVIDENCE = hnp.arrays(np.int8, (4, 5, 6)).map(lambda a: a.astype(np.float32) / 8)


def test_contacts_are_counted():
    labels = np.array([[1, 1, 2], [1, 3, 3], [0, 3, 2]])
    evidence = np.arange(9.0).reshape(3, 3)
    found = contacts(labels, evidence)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (1, 2, 1, 2.0), (1, 3, 2, 4.0 + 4.0), (2, 3, 3, 5.0 + 8.0 + 8.0)
    ]  # fmt: skip


def test_what_is_joined_counts_as_one():
    """1-2 go first; 3 then has 4 faces with both, of mean 5, though it has 2 with 1 of mean 2."""
    graph = Contacts(
        np.array([1, 1, 2], np.uint64), np.array([2, 3, 3], np.uint64),
        np.array([1, 2, 2]), np.array([0.5, 4.0, 16.0]),
    )  # fmt: skip
    ids = np.array([1, 2, 3], np.uint64)
    assert roots_of(ids, agglomerate(graph, 0.4)).tolist() == [1, 2, 3]
    assert roots_of(ids, agglomerate(graph, 4.9)).tolist() == [1, 1, 3]
    assert roots_of(ids, agglomerate(graph, 5.0)).tolist() == [1, 1, 1]


def test_what_is_enclosed_goes_first():
    """1 holds 2 behind a strong boundary, 3 is beside 1 behind a weak one, 4 beyond 3."""
    graph = Contacts(
        np.array([1, 1, 3], np.uint64), np.array([2, 3, 4], np.uint64),
        np.array([10, 10, 30]), np.array([20.0, 14.0, 60.0]),
    )  # fmt: skip
    ids = np.array([1, 2, 3, 4], np.uint64)
    # scores: 2.0 - 10/10, 1.4 - 10/20, 2.0 - 30/30; with 2 in it 1 has ten faces, all beside 3
    assert roots_of(ids, agglomerate(graph, 1.39)).tolist() == [1, 2, 3, 4]
    assert roots_of(ids, agglomerate(graph, 0.89, enclosed=1.0)).tolist() == [1, 2, 3, 4]
    assert roots_of(ids, agglomerate(graph, 0.91, enclosed=1.0)).tolist() == [1, 2, 1, 4]
    assert roots_of(ids, agglomerate(graph, 1.0, enclosed=1.0)).tolist() == [1, 1, 1, 1]


def slowly(labels, evidence, threshold):
    """Relabels the image after every join and looks at all contacts anew."""
    labels = labels.copy()
    while True:
        found = contacts(labels, evidence)
        means = found.total / found.faces
        if not means.size or means.min() > threshold:
            return labels
        at = int(np.argmin(means))  # of equal ones the first, in order of ids
        labels[labels == found.b[at]] = found.a[at]


@given(LABELS, EVIDENCE, st.integers(-100, 100))
def test_joins_are_those_of_the_slow_way(labels, evidence, eighths):
    evidence = evidence + np.linspace(0, 1e-3, evidence.size).reshape(evidence.shape)
    threshold = eighths / 8 + 1e-7
    ids = labels.astype(np.uint64)
    found = roots_of(ids.ravel(), agglomerate(contacts(ids, evidence), threshold))
    expected = slowly(ids, evidence, threshold).ravel()
    pairs = np.unique(np.stack([found, expected], axis=1), axis=0)
    assert len(pairs) == len(np.unique(found)) == len(np.unique(expected))


def of_part(graph, part, number):
    """What a worker sees that joins one part: all rows with an end in it, and what is outside."""
    mine = (part[graph.a] == number) | (part[graph.b] == number)
    seen = Contacts(*(column[mine] for column in graph))
    ids = surfaces(seen).ids
    return seen, ids[part[ids] != number]


def in_two_parts(graph, part, threshold, enclosed=0.0):
    """Joined in parts 0 and 1 first, then what they leave; and how much that is."""
    forests, rows, alive, total = [], [], [], surfaces(graph)
    for number in (0, 1):
        seen, outside = of_part(graph, part, number)
        known = surfaces(seen, total)
        joined = agglomerate(seen, threshold, enclosed, surface=total, outside=outside)
        left = remaining(seen, known, joined, threshold + enclosed, outside)
        forests.append(joined)
        alive.append(left)
    names = merge(forests)
    every = Surfaces(*(np.concatenate(column) for column in zip(*alive, strict=True)))
    order = np.argsort(every.ids)
    every = Surfaces(every.ids[order], every.faces[order])
    rest = renamed(graph, names)
    rows = np.isin(rest.a, every.ids) & np.isin(rest.b, every.ids)
    rest = Contacts(*(column[rows] for column in rest))
    last = agglomerate(rest, threshold, enclosed, surface=every)
    return merge([names, last]), len(rest.a)


@given(LABELS, EVIDENCE, st.integers(-100, 100), st.randoms(use_true_random=False))
def test_joined_in_parts_is_joined_at_once(labels, evidence, eighths, random):
    """With average linkage alone the result is the same; what is left over is never more."""
    evidence = evidence + np.linspace(0, 1e-3, evidence.size).reshape(evidence.shape)
    threshold = eighths / 8 + 1e-7
    ids = labels.astype(np.uint64)
    graph = contacts(ids, evidence)
    part = np.array([random.randrange(2) for _ in range(13)])
    found, left = in_two_parts(graph, part, threshold)
    whole = roots_of(ids.ravel(), agglomerate(graph, threshold))
    np.testing.assert_array_equal(roots_of(ids.ravel(), found), whole)
    assert left <= len(graph.a)


def test_what_can_be_joined_to_nothing_is_left_out():
    """1-2-3 and 4-5-6 in a row, a wall between 3 and 4: nothing is left for later."""
    ids = np.arange(1, 7, dtype=np.uint64)
    graph = Contacts(ids[:-1], ids[1:], np.ones(5, int), np.array([0.0, 1.0, 9.0, 0.5, 1.5]))
    part = np.array([0, 0, 0, 0, 1, 1, 1])
    found, left = in_two_parts(graph, part, 2.0)
    assert roots_of(ids, found).tolist() == [1, 1, 1, 4, 4, 4]
    assert left == 0


def test_the_surface_of_what_was_joined_is_what_touches_others():
    labels = np.array([[1, 2, 5], [3, 4, 5]], np.uint64)
    graph = contacts(labels, np.zeros((2, 3)))
    joined = np.array([[2, 1], [3, 1]], np.uint64)
    left = remaining(graph, surfaces(graph), joined, 0.0, np.array([5], np.uint64))
    assert left.ids.tolist() == [1, 4]
    assert left.faces.tolist() == [1 + 2, 2 + 1]  # 1 has 2-5, 2-4, 3-4; 4 has those and 4-5


@given(LABELS, EVIDENCE, st.integers(1, 3))
def test_blocks_add_up_to_the_whole(labels, evidence, cut):
    """Blocks overlap by the one layer that the faces between them need."""
    parts = [contacts(labels[: cut + 1], evidence[: cut + 1])]
    parts.append(contacts(labels[cut:], evidence[cut:]))
    shared = contacts(labels[cut], evidence[cut])  # which both have
    whole = contacts(labels, evidence)
    together = added(parts)
    minus = added([together, shared._replace(faces=-shared.faces, total=-shared.total)])
    kept = minus.faces > 0
    for got, expected in zip(minus, whole, strict=True):
        np.testing.assert_array_equal(got[kept], expected)


@given(LABELS, EVIDENCE, st.tuples(*(st.integers(1, n) for n in (4, 5, 6))))
def test_cores_add_up_to_the_whole(labels, evidence, block):
    """Blocks that reach one layer on count the faces of their own voxels."""
    parts = []
    for start in np.ndindex(*(-(-n // b) for n, b in zip(labels.shape, block, strict=True))):
        low = np.array(start) * block
        core = np.minimum(low + block, labels.shape) - low
        window = tuple(slice(a, a + c + 1) for a, c in zip(low, core, strict=True))
        parts.append(contacts(labels[window], evidence[window], core.tolist()))
    for got, expected in zip(added(parts), contacts(labels, evidence), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_nothing_touches_in_an_empty_image():
    found = contacts(np.zeros((3, 3), int), np.zeros((3, 3)))
    assert len(agglomerate(found, np.inf)) == 0
    assert found.total.dtype == np.float64


def test_a_chain_is_one_object():
    labels = np.arange(1, 1001)
    found = agglomerate(contacts(labels, np.zeros(1000)), 0.0)
    assert set(roots_of(labels.astype(np.uint64), found).tolist()) == {1}
    assert agglomerate(contacts(labels, np.ones(1000)), 0.5).size == 0
