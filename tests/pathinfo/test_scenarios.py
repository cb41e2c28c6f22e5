"""What has hurt other stores, of path infos; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.pathinfo import CachedPathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.mirror import MirrorPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.limit import Limit, Permits


@virtual_clock
async def test_a_follower_that_leaves_does_not_cancel_the_leader() -> None:
    near, far = Scripted(None, puts=[]), Scripted(after=1.0)
    cache = CachedPathInfoService(near, far)
    leader, follower = (asyncio.create_task(cache.get(KEY)) for _ in range(2))
    await asyncio.sleep(0.5)
    follower.cancel()
    await asyncio.wait([follower])
    assert await leader == info_of()
    assert far.asked("get") == 1 and near.puts == [info_of()]
    await cache.aclose()


@virtual_clock
async def test_two_tiers_that_share_a_member_under_limits_of_one_do_not_deadlock() -> None:
    disk, office = Scripted(None, puts=[]), Scripted(puts=[])
    one = LimitPathInfoService(disk, Limit(Permits(1)))
    two = LimitPathInfoService(office, Limit(Permits(1)))
    inner = RacingPathInfoService([one, two], ["one", "two"], hedge=Hedging(0.0))
    outer = FallbackPathInfoService([one, inner, two], ["one", "inner", "two"])
    mirror = MirrorPathInfoService([one, outer], ["one", "outer"], quorum=1)
    cache = CachedPathInfoService(one, mirror)
    async with asyncio.timeout(600.0):
        for _ in range(3):
            disk.says = None
            assert await asyncio.gather(*[cache.get(KEY) for _ in range(4)]) == [info_of()] * 4
            streams = [await cache.open_nar(info_of()) for _ in range(4)]
            assert [await read(stream) for stream in streams] == [nar_of()] * 4
            await asyncio.gather(*[mirror.put(info_of()) for _ in range(4)])
    await cache.aclose()
    await mirror.aclose()
    for limited in (one, two):
        assert limited.limit.permits is not None and limited.limit.permits.in_use == 0


@virtual_clock
async def test_what_near_had_when_it_was_asked_and_not_when_it_is_read_comes_from_far() -> None:
    near, far = Scripted(puts=[]), Scripted()
    cache = CachedPathInfoService(near, far)
    description = await cache.describe(KEY)
    assert description is not None and not far.calls
    near.says = None
    assert await read(await cache.open_nar(description)) == nar_of()
    assert await cache.get(KEY) == info_of()
    await cache.aclose()


@virtual_clock
async def test_a_breaker_whose_probe_was_cancelled_lets_another_one_through() -> None:
    inner = Scripted(says=Unavailable("down"))
    service = BreakerPathInfoService(inner, Breaker(failures=1, open_for=30.0))
    with pytest.raises(Unavailable):
        await service.describe(KEY)
    inner.says, inner.after = info_of(), 3600.0
    await asyncio.sleep(30.0)
    probe = asyncio.create_task(service.describe(KEY))
    await asyncio.sleep(10.0)
    assert inner.asked("describe") == 2
    probe.cancel()
    await asyncio.wait([probe])
    inner.after = 0.0
    with pytest.raises(Unavailable, match="left alone"):
        await service.describe(KEY)
    await asyncio.sleep(30.0)
    assert await service.describe(KEY) == info_of()
