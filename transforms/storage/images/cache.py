"""A bounded set of open images, shared by the threads of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


@dataclass
class _Entry(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    item: T | None = None
    users: int = 0
    evicted: bool = False


class OpenFiles(Generic[T]):
    """Least recently used items, at most `capacity`, closed when the last user is done."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def borrow(self, key: Hashable, opener: Callable[[], T]) -> Iterator[T]:
        """The item of `key`, opened once by `opener`; it stays open inside the `with` block."""
        entry = self._claim(key)
        try:
            with entry.lock:  # one opener per key, without holding up the other keys
                if entry.item is None:
                    entry.item = opener()
            yield entry.item
        finally:
            self._release(key, entry)

    def clear(self) -> None:
        """Closes everything that is not in use, and the rest as it is given back."""
        self._evict(keep=0)

    def _claim(self, key: Hashable) -> _Entry[T]:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        self._evict(keep=self._capacity)
        return entry

    def _release(self, key: Hashable, entry: _Entry[T]) -> None:
        with self._lock:
            entry.users -= 1
            if entry.item is None and self._entries.get(key) is entry and not entry.users:
                del self._entries[key]  # the opener failed
            item = entry.item if entry.evicted and not entry.users else None
        if item is not None:
            item.close()

    def _evict(self, keep: int) -> None:
        idle: list[T] = []
        with self._lock:
            while len(self._entries) > keep:
                _, entry = self._entries.popitem(last=False)
                entry.evicted = True
                if not entry.users and entry.item is not None:
                    idle.append(entry.item)
        for item in idle:
            item.close()
