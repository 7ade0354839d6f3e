import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.transforms.align.blocks import bad_sections, blocks_of


def test_a_section_without_flow_either_way_is_bad():
    # 3 has none to 2 and 1, and neither 4 nor 5 to it; 4 reaches 2 over it
    known = {1: [0.0, 0.0], 2: [0.9, 0.0], 3: [0.0, 0.0], 4: [0.0, 0.8], 5: [0.9, 0.0]}
    assert bad_sections(known, (1, 2), 0.1) == [3]


def test_the_first_section_is_good_if_a_later_one_leads_to_it():
    assert bad_sections({0: [0.0], 1: [0.5]}, (1,), 0.1) == []
    assert bad_sections({0: [0.0], 1: [0.0]}, (1,), 0.1) == [0, 1]


def test_blocks_overlap_and_begin_with_good_sections():
    blocks = blocks_of(range(40), [0, 9, 30], 15)
    assert [(b.first, b.last) for b in blocks] == [(1, 16), (10, 31), (25, 39)]
    assert blocks[0].sections == (*range(1, 17), 0)
    assert blocks[1].own == tuple(range(17, 32))


def test_nothing_good_makes_no_block():
    assert blocks_of([0, 1], [0, 1], 5) == []


def test_the_first_block_begins_with_a_section_that_is_whole():
    (block,) = blocks_of(range(6), [3], 50, cracked=[0, 1])
    assert block.first == 2
    assert block.sections == (2, 3, 4, 5, 1, 0)  # those before come last, the nearest first
    assert set(block.own) == set(range(6))
    (all_cracked,) = blocks_of(range(4), [0], 50, cracked=range(4))
    assert all_cracked.first == 1


@given(st.sets(st.integers(0, 60), min_size=2), st.integers(2, 20), st.data())
def test_every_section_is_one_block_s_own(sections, length, data):
    ordered = sorted(sections)
    bad = data.draw(st.sets(st.sampled_from(ordered), max_size=len(ordered) - 1))
    blocks = blocks_of(ordered, sorted(bad), length)
    assert sorted(s for b in blocks for s in b.own) == ordered
    for block, following in itertools.pairwise(blocks):
        assert following.first in block.own
        assert following.own[0] > block.last >= following.first
        assert {block.last, following.first}.isdisjoint(bad)
    assert all(b.sections[0] == b.first for b in blocks)


@pytest.mark.parametrize("length", [3, 50])
def test_a_short_rest_joins_the_last_block(length):
    blocks = blocks_of(range(10), [], length)
    assert blocks[-1].last == 9
    assert all(b.last - b.first >= min(length // 2, 9) for b in blocks)
