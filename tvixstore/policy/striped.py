"""Locks by key, of which there are only so many: two keys rarely share one."""

from __future__ import annotations

import asyncio
import zlib

_LOCKS = 64


class StripedLocks:
    """Whoever changes what is under a key holds `of(key)` meanwhile; others go on."""

    def __init__(self) -> None:
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]

    def of(self, key: bytes) -> asyncio.Lock:
        return self._locks[zlib.crc32(key) % _LOCKS]
