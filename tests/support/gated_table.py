"""A table in memory that tests hold up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tvixstore.errors import StorageFull
from tvixstore.kv import Change, MemoryKeyValue


class GatedTable(MemoryKeyValue):
    """Counts what it is asked, and can be made to wait, or to be full."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[bytes] = []
        self.applied: list[list[Change]] = []
        self.full = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def get(self, key: bytes) -> bytes | None:
        self.reads.append(key)
        value = await super().get(key)
        if not self.gate.is_set():
            self.waiting.set()
            await self.gate.wait()
        return value

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise StorageFull("no room")
        self.applied.append(list(changes))
        await super().apply(changes)
