"""What has hurt other stores, of Directories; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.directory.samples import CLOSURE, LEAF, MIDDLE, OTHER, ROOT
from tests.directory.scripted import Scripted, closure_of, closure_until_it_breaks
from tests.directory.test_cached import WHOLE, cached, filled, holding, long_closure
from tests.evict.stores import open_store
from tests.support.virtual_clock import virtual_clock
from tvixstore.castore import Directory
from tvixstore.directory import CachedDirectoryService, MemoryDirectoryService
from tvixstore.directory.breaker import BreakerDirectoryService
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.limit import LimitDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.racing import RacingDirectoryService
from tvixstore.errors import Incomplete, StorageFull, Unavailable
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.limit import Limit, Permits


async def rest_of(closure: AsyncGenerator[Directory, None]) -> list[Directory]:
    return [each async for each in closure]


@pytest.mark.parametrize("leaver", ["the leader", "a follower"])
def test_one_who_leaves_a_closure_does_not_disturb_the_others(leaver: str) -> None:
    @virtual_clock
    async def run() -> None:
        near, far = Scripted(), holding(*CLOSURE, waits_at=2)
        async with cached(near, far) as cache:
            async with (
                aclosing(cache.get_closure(ROOT.digest)) as leader,
                aclosing(cache.get_closure(ROOT.digest)) as follower,
            ):
                assert await anext(leader) == await anext(follower) == ROOT
                leaving, staying = leader, follower
                if leaver == "a follower":
                    leaving, staying = follower, leader
                rest = asyncio.create_task(rest_of(staying))
                next_one = asyncio.create_task(rest_of(leaving))
                await asyncio.sleep(1.0)
                next_one.cancel()
                await asyncio.wait([next_one])
                far.go_on.set()
                assert await rest == WHOLE[1:]
            await near.kept.wait()
            assert near.directories == far.directories
        assert far.calls == {"get_closure": 1}

    run()


@virtual_clock
async def test_a_near_that_fills_up_in_mid_closure_is_passed_by_and_shows_no_root() -> None:
    whole = long_closure(300)
    near, far = Scripted(), holding(*whole, waits_at=200)
    async with cached(near, far, most_entries=50) as cache:
        reading = asyncio.create_task(closure_of(cache, whole[0].digest))
        await asyncio.sleep(1.0)
        assert near.directories, "nothing had come there before it was full"
        near.full = StorageFull("no space left")
        far.go_on.set()
        assert await reading == whole
        await filled(cache)
        assert len(near.directories) < len(whole)
        near.full = None
        # What lies there in part is made whole, and never taken for the whole.
        assert await closure_of(cache, whole[0].digest) == whole
        await filled(cache)
        assert near.directories == far.directories


async def test_what_a_fill_has_kept_so_far_is_not_evicted_before_it_ends(tmp_path: Path) -> None:
    whole = long_closure(300)
    far = holding(*whole, waits_at=200)
    async with open_store(tmp_path) as store:
        cache = CachedDirectoryService(store.directories, far, holds=store.holds)
        cache._fills.most_entries = 50
        reading = asyncio.create_task(closure_of(cache, whole[0].digest))
        while store.rows()["directories"] < 100:
            assert not reading.done()
            await asyncio.sleep(0)
        # Nothing refers to what has come: neither a path, nor a root that is there.
        before = store.rows()["directories"]
        await store.time_passes()
        await store.collector.collect()
        assert store.rows()["directories"] >= before
        far.go_on.set()
        assert await reading == whole
        await filled(cache)
        await cache.aclose()
        assert await closure_of(store.directories, whole[0].digest) == whole
        assert await store.problems() == []


@virtual_clock
async def test_a_far_that_had_the_root_when_it_was_asked_and_no_closure_when_it_is_read() -> None:
    near, far = Scripted(), holding(*CLOSURE)
    async with cached(near, far) as cache:
        assert await cache.get(ROOT.digest) == ROOT
        far.directories.clear()
        came, error = await closure_until_it_breaks(cache, ROOT.digest)
        assert came == [ROOT] and isinstance(error, Incomplete)
        far.hold(CLOSURE)
        assert await closure_of(cache, ROOT.digest) == WHOLE


@virtual_clock
async def test_a_closure_that_ends_too_early_is_no_shorter_closure() -> None:
    near, far = Scripted(), Scripted(streams={ROOT.digest: [ROOT, MIDDLE, LEAF]})
    async with cached(near, far) as cache:
        came, error = await closure_until_it_breaks(cache, ROOT.digest)
        assert came == [ROOT, MIDDLE, LEAF]
        assert isinstance(error, Incomplete) and error.digest == OTHER.digest.raw
        await filled(cache)
        assert near.directories == {}


@virtual_clock
async def test_what_near_had_when_it_was_asked_and_not_when_it_is_read_comes_from_far() -> None:
    near, far = holding(*CLOSURE), holding(*CLOSURE)
    async with cached(near, far) as cache:
        assert await cache.get(ROOT.digest) == ROOT
        assert not far.calls
        for lost in (ROOT, MIDDLE, OTHER):
            near.directories.pop(lost.digest, None)
            assert await closure_of(cache, ROOT.digest) == WHOLE
            await filled(cache)
            assert near.directories == far.directories


@virtual_clock
async def test_two_tiers_that_share_a_member_under_limits_of_one_do_not_deadlock() -> None:
    one = LimitDirectoryService(MemoryDirectoryService(), Limit(Permits(1)))
    two = LimitDirectoryService(holding(*CLOSURE), Limit(Permits(1)))
    inner = RacingDirectoryService([one, two], ["one", "two"], Hedging(0.0))
    outer = FallbackDirectoryService([one, inner, two], ["one", "inner", "two"])
    mirror = MirrorDirectoryService([one, outer], ["one", "outer"], 1)
    cache = CachedDirectoryService(one, mirror)
    async with asyncio.timeout(600.0):
        for _ in range(3):
            closures = [closure_of(cache, ROOT.digest) for _ in range(4)]
            assert await asyncio.gather(*closures) == [WHOLE] * 4
            async with aclosing(cache.get_closure(ROOT.digest)) as closure:
                # Somebody who reads from one tier what makes him ask the other.
                async for each in closure:
                    assert await mirror.get(each.digest) == each
            await asyncio.gather(*[mirror.put_many([LEAF, OTHER]) for _ in range(4)])
        await filled(cache)
    await cache.aclose()
    await mirror.aclose()
    for limited in (one, two):
        assert limited.limit.permits is not None and limited.limit.permits.in_use == 0


@virtual_clock
async def test_a_breaker_whose_probe_was_cancelled_lets_another_one_through() -> None:
    inner = holding(*CLOSURE, fails=Unavailable("down"))
    service = BreakerDirectoryService(inner, Breaker(failures=1, open_for=30.0))
    with pytest.raises(Unavailable):
        await service.get(LEAF.digest)
    inner.fails, inner.after = None, 3600.0
    await asyncio.sleep(30.0)
    probe = asyncio.create_task(closure_of(service, ROOT.digest))
    await asyncio.sleep(10.0)
    assert inner.calls["get_closure"] == 1
    probe.cancel()
    await asyncio.wait([probe])
    inner.after = 0.0
    with pytest.raises(Unavailable, match="left alone"):
        await service.get(LEAF.digest)
    await asyncio.sleep(30.0)
    assert await closure_of(service, ROOT.digest) == WHOLE
