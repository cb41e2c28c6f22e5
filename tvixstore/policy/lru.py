"""A dict that forgets what was used longest ago, bounded by weight."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lru(Generic[Key, Value]):
    """Holds entries whose weights add up to at most `capacity`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value, which thereby counts as used, or `None`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def peek(self, key: Key) -> Value | None:
        """The value or `None`; that does not count as using it."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def values(self) -> list[Value]:
        """All of them, the one used longest ago first; that does not count as using them."""
        return [value for value, _ in self._entries.values()]

    def put(self, key: Key, value: Value, weight: int = 1) -> None:
        """Keeps `value` in place of what the key had, unless it alone outweighs the capacity."""
        self.discard(key)
        if weight > self._capacity:
            return
        self._entries[key] = (value, weight)
        self._weight += weight
        while self._weight > self._capacity:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._weight -= dropped

    def discard(self, key: Key) -> None:
        """Forgets the key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
