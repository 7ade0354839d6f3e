import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.transforms.sampling import sample_boxes

_SHAPES = st.lists(st.integers(1, 40), min_size=2, max_size=3)


@given(_SHAPES, st.integers(3, 12))
def test_few_boxes_are_all_there_and_cover_the_volume_once(shape, side):
    seen = np.zeros(shape, int)
    for box in sample_boxes(shape, [side] * len(shape), 10**6):
        seen[box.slices] += 1
    assert (seen == 1).all()


def test_many_boxes_are_thinned_out_all_over_the_volume_and_the_same_ones_every_time():
    boxes = sample_boxes((1000, 1000), (10, 10), 50)
    assert 25 < len(boxes) <= 50
    assert boxes == sample_boxes((1000, 1000), (10, 10), 50)
    assert len(set(boxes)) == len(boxes)
    starts = np.array([box.start for box in boxes])
    quarters = {tuple(quarter) for quarter in starts // 500}
    assert len(quarters) == 4
