"""The bounded set of open files under eviction, failure and many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from warpbeam.transforms.storage.images.cache import OpenFiles


class Item:
    def __init__(self):
        self.closed = False

    def close(self):
        assert not self.closed
        self.closed = True


def test_least_recently_used_is_closed_first():
    files, items = OpenFiles(2), {k: Item() for k in "abc"}
    for key in "ababac":
        with files.borrow(key, lambda k=key: items[k]) as item:
            assert not item.closed
    assert {k: i.closed for k, i in items.items()} == {"a": False, "b": True, "c": False}
    files.clear()
    assert all(i.closed for i in items.values())
    assert len(files) == 0


def test_an_item_in_use_is_closed_when_given_back():
    files, item = OpenFiles(1), Item()
    with files.borrow("a", lambda: item):
        with files.borrow("b", Item):
            assert not item.closed
        assert not item.closed
    assert item.closed


def test_a_failed_opener_is_tried_again():
    files = OpenFiles(2)

    def fail():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), files.borrow("a", fail):
        pass
    assert len(files) == 0
    with files.borrow("a", Item) as item:
        assert not item.closed


def test_threads_never_see_a_closed_item_and_open_each_key_once_at_a_time():
    files, open_now, lock = OpenFiles(3), {}, threading.Lock()

    class Counted(Item):
        def __init__(self, key):
            super().__init__()
            with lock:
                open_now[key] = open_now.get(key, 0) + 1

    def work(k):
        key = k % 7
        with files.borrow(key, lambda: Counted(key)) as item:
            for _ in range(20):
                assert not item.closed

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(500)))
    files.clear()
    assert set(open_now) == set(range(7))
