"""A table in a dict: for tests, and for compositions that keep nothing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import islice
from typing import TYPE_CHECKING

from tvixstore.kv.service import Change, KeyValue, check_key

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemoryKeyValue(KeyValue):
    atomic = True

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        # The keys in order, made by the first scan after one came or went.
        self._ordered: list[bytes] | None = None

    def __repr__(self) -> str:
        return "memory"

    async def get(self, key: bytes) -> bytes | None:
        check_key(key)
        return self._values.get(key)

    async def put_if_absent(self, key: bytes, value: bytes) -> bool:
        if await self.get(key) is not None:
            return False
        await self.apply([(key, value)])
        return True

    async def apply(self, changes: Sequence[Change]) -> None:
        for key, _ in changes:
            check_key(key)
        for key, value in changes:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self._ordered = None

    async def scan(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        if self._ordered is None:
            self._ordered = sorted(self._values)
        keys = self._ordered
        begin = bisect_left(keys, prefix)
        if after is not None:
            begin = max(begin, bisect_right(keys, after))
        page: list[tuple[bytes, bytes]] = []
        for key in islice(keys, begin, begin + limit):
            if not key.startswith(prefix):
                break
            page.append((key, self._values[key]))
        return page
