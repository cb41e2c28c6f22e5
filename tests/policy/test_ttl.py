from __future__ import annotations

import asyncio

from tests.support.virtual_clock import virtual_clock
from tvixstore.policy.ttl import TtlMap


@virtual_clock
async def test_an_entry_expires() -> None:
    entries: TtlMap[str, int] = TtlMap(10)
    entries.put("a", 0, ttl=5.0)
    await asyncio.sleep(4.9)
    assert entries.get("a") == 0
    await asyncio.sleep(0.1)
    assert entries.get("a") is None
    assert len(entries) == 0


@virtual_clock
async def test_putting_again_starts_the_time_anew() -> None:
    entries: TtlMap[str, int] = TtlMap(10)
    entries.put("a", 1, ttl=5.0)
    await asyncio.sleep(4.0)
    entries.put("a", 2, ttl=5.0)
    await asyncio.sleep(4.0)
    assert entries.get("a") == 2


@virtual_clock
async def test_beyond_the_capacity_the_oldest_is_forgotten() -> None:
    entries: TtlMap[str, int] = TtlMap(2)
    for number, key in enumerate("aba" + "c"):
        entries.put(key, number, ttl=5.0)
    assert [entries.get(key) for key in "abc"] == [2, None, 3]
    entries.discard("a")
    entries.discard("never there")
    assert entries.get("a") is None
