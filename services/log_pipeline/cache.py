"""``BoundedLru``: what was asked before, bounded in entries and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K", bytes, str)
V = TypeVar("V")


class BoundedLru(Generic[K, V]):
    """Forgets what was not used for longest. An entry's size is its key's length.

    Not safe to share between threads.
    """

    def __init__(self, entries: int, size_bytes: int) -> None:
        self._entries = entries
        self._largest = size_bytes
        self._items: OrderedDict[K, V] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        """The value, used just now; None when it is not there."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        if key not in self._items:
            self.size_bytes += len(key)
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._entries or self.size_bytes > self._largest:
            self.size_bytes -= len(self._items.popitem(last=False)[0])

    def clear(self) -> None:
        self._items.clear()
        self.size_bytes = 0
