"""A bounded map whose entries expire, by the running loop's time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class TtlMap(Generic[Key, Value]):
    """Holds at most `capacity` entries; beyond that, those put longest ago are forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # In the order of putting; each with the loop time at which it expires.
        self._entries: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value, or `None` if there is none or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires = entry
        if asyncio.get_running_loop().time() >= expires:
            del self._entries[key]
            return None
        return value

    def left(self, key: Key) -> float | None:
        """Seconds until it is forgotten, or `None` if it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        left = entry[1] - asyncio.get_running_loop().time()
        return left if left > 0 else None

    def put(self, key: Key, value: Value, ttl: float) -> None:
        """Keeps `value` for `ttl` seconds, in place of what the key had."""
        self._entries.pop(key, None)
        self._entries[key] = (value, asyncio.get_running_loop().time() + ttl)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def discard(self, key: Key) -> bool:
        """Forgets the key; whether it was there."""
        return self._entries.pop(key, None) is not None
