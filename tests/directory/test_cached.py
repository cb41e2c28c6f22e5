from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from tests.directory.samples import CLOSURE, LEAF, MIDDLE, OTHER, ROOT, directory, named
from tests.directory.scripted import Scripted, closure_of, closure_until_it_breaks
from tests.support.virtual_clock import virtual_clock
from tvixstore.castore import Directory, SizeRule
from tvixstore.directory import CachedDirectoryService
from tvixstore.errors import CorruptData, Incomplete, StorageFull, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.filling import LINGER

# What a closure looks like that is read from its root.
WHOLE = [ROOT, MIDDLE, LEAF, OTHER]


@asynccontextmanager
async def cached(
    near: Scripted, far: Scripted, metrics: Metrics | None = None, most_entries: int | None = None
) -> AsyncIterator[CachedDirectoryService]:
    cache = CachedDirectoryService(near, far, metrics)
    if most_entries is not None:
        cache._fills.most_entries = most_entries
    try:
        yield cache
    finally:
        await cache.aclose()
        assert near.open_closures == far.open_closures == 0


async def filled(cache: CachedDirectoryService) -> None:
    """Waits until nothing is on its way."""
    await asyncio.gather(*cache._fills._filling._tasks)


def holding(*directories: Directory, **script: object) -> Scripted:
    service = Scripted(**script)  # type: ignore[arg-type]
    service.hold(directories)
    return service


def long_closure(leaves: int) -> list[Directory]:
    """A closure of that many leaves and three more, from its root."""
    bottom = [directory(file=str(number)) for number in range(leaves)]
    half = leaves // 2
    left = named({b"%04d" % number: leaf for number, leaf in enumerate(bottom[:half])})
    right = named({b"%04d" % number: leaf for number, leaf in enumerate(bottom[half:])})
    return [directory(left=left, right=right), left, right, *bottom]


@virtual_clock
async def test_what_near_has_is_not_asked_of_far() -> None:
    far = Scripted()
    async with cached(holding(*CLOSURE), far) as cache:
        assert await cache.get(LEAF.digest) == LEAF
        assert await cache.get_many([ROOT.digest, LEAF.digest]) == [ROOT, LEAF]
        assert await closure_of(cache, ROOT.digest) == WHOLE
    assert not far.calls


@virtual_clock
async def test_what_near_lacks_comes_from_far_and_is_kept() -> None:
    near, far = holding(LEAF), holding(*CLOSURE)
    async with cached(near, far) as cache:
        assert await cache.get(OTHER.digest) == OTHER
        assert await cache.get_many([ROOT.digest, LEAF.digest]) == [ROOT, LEAF]
        far.directories.clear()
        assert await cache.get_many([OTHER.digest, ROOT.digest]) == [OTHER, ROOT]


@virtual_clock
async def test_a_closure_is_fetched_in_one_go_and_kept() -> None:
    near, far = Scripted(), holding(*CLOSURE)
    metrics = Metrics()
    async with cached(near, far, metrics) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
        await near.kept.wait()
        assert near.directories == far.directories
        assert await closure_of(cache, ROOT.digest) == WHOLE
    assert far.calls == {"get_closure": 1}
    assert metrics.registry.get_sample_value("tvixstore_fills_total", {"outcome": "done"}) == 1


@virtual_clock
async def test_absent_is_what_neither_has() -> None:
    near, far = Scripted(), Scripted()
    async with cached(near, far) as cache:
        assert await cache.get(LEAF.digest) is None
        assert await cache.get_many([LEAF.digest]) == [None]
        assert await closure_of(cache, ROOT.digest) == []
        near.fails = OSError(5, "Input/output error")
        for call in (cache.get(LEAF.digest), cache.get_many([LEAF.digest])):
            with pytest.raises(Unavailable, match="Input/output error"):
                await call
        with pytest.raises(Unavailable, match="Input/output error"):
            await closure_of(cache, ROOT.digest)
        near.fails, far.fails = None, Unavailable("down")
        for call in (cache.get(LEAF.digest), cache.get_many([LEAF.digest])):
            with pytest.raises(Unavailable, match="down"):
                await call
        with pytest.raises(Unavailable, match="down"):
            await closure_of(cache, ROOT.digest)


@virtual_clock
async def test_a_subtree_that_near_lacks_is_asked_of_far_and_nothing_else() -> None:
    near, far = holding(ROOT, LEAF), holding(*CLOSURE)
    async with cached(near, far) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
        await near.kept.wait()
        assert near.directories == far.directories
    assert far.calls == {"get_closure": 1}


@virtual_clock
async def test_what_one_side_lacks_and_the_other_has_makes_a_whole() -> None:
    near, far = holding(OTHER), holding(ROOT, MIDDLE, LEAF)
    async with cached(near, far) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
        del near.directories[OTHER.digest]
        came, error = await closure_until_it_breaks(cache, ROOT.digest)
    assert came == [ROOT, MIDDLE, LEAF]
    assert isinstance(error, Incomplete) and error.digest == OTHER.digest.raw


@virtual_clock
async def test_many_missing_subtrees_are_fetched_together() -> None:
    whole = long_closure(200)
    near, far = holding(*whole[:3]), holding(*whole, after=1.0)
    async with cached(near, far) as cache:
        assert await closure_of(cache, whole[0].digest) == whole
    assert asyncio.get_running_loop().time() < 60


@virtual_clock
async def test_where_a_lot_is_missing_the_whole_is_fetched_once() -> None:
    whole = long_closure(200)
    near, far = holding(*whole[:3], *whole[50:60]), holding(*whole)
    async with cached(near, far) as cache:
        assert await closure_of(cache, whole[0].digest) == whole
    assert far.calls == {"get_closure": 1}
    # Far may have lost its root, and the rest all the same.
    near, far = holding(*whole[:3]), holding(*whole[3:])
    async with cached(near, far) as cache:
        assert await closure_of(cache, whole[0].digest) == whole


@virtual_clock
async def test_a_near_or_a_far_that_gives_only_roots_will_do() -> None:
    for near, far in [
        (holding(roots_only=True), holding(*CLOSURE)),
        (holding(*CLOSURE, roots_only=True), Scripted()),
        (Scripted(), holding(*CLOSURE, roots_only=True)),
    ]:
        async with cached(near, far) as cache:
            assert await closure_of(cache, ROOT.digest) == WHOLE


def lies() -> dict[str, list[Directory]]:
    """What a far may send as the closure of `ROOT`."""
    return {
        "one twice": [ROOT, MIDDLE, LEAF, LEAF, OTHER],
        "one that nobody named": [ROOT, MIDDLE, directory(x="x"), LEAF, OTHER],
        "another root": [MIDDLE, LEAF, OTHER],
        "a child before its parent": [ROOT, OTHER, MIDDLE, LEAF],
    }


@pytest.mark.parametrize("lie", lies())
def test_a_closure_that_does_not_hang_together_is_neither_passed_on_nor_kept(lie: str) -> None:
    @virtual_clock
    async def check() -> None:
        near, far = Scripted(), Scripted(streams={ROOT.digest: lies()[lie]})
        async with cached(near, far) as cache:
            came, error = await closure_until_it_breaks(cache, ROOT.digest)
            assert isinstance(error, CorruptData)
            assert came == WHOLE[: len(came)]
        assert near.directories == {}

    check()


@virtual_clock
async def test_sizes_that_lie_are_neither_passed_on_nor_kept() -> None:
    leaf = directory(one="1", two="2")
    middle = directory(leaf=leaf)
    root = directory(SizeRule.DOUBLED, middle=middle)
    near, far = Scripted(), holding(leaf, middle, root)
    async with cached(near, far) as cache:
        _, error = await closure_until_it_breaks(cache, root.digest)
        assert isinstance(error, CorruptData)
    assert near.directories == {}


@virtual_clock
async def test_sizes_that_lie_are_not_left_out_where_near_gives_them() -> None:
    leaf = directory(one="1", two="2")
    middle = directory(leaf=leaf)
    root = directory(SizeRule.DOUBLED, middle=middle)
    near = Scripted(streams={root.digest: [root, middle, leaf]})
    near.hold([leaf, middle, root])
    async with cached(near, holding(leaf, middle, root)) as cache:
        _, error = await closure_until_it_breaks(cache, root.digest)
        assert isinstance(error, CorruptData)


@virtual_clock
async def test_another_directory_than_the_one_asked_for_is_corrupt() -> None:
    near, far = Scripted(), Scripted(lies={LEAF.digest: OTHER})
    async with cached(near, far) as cache:
        for call in (cache.get(LEAF.digest), cache.get_many([LEAF.digest])):
            with pytest.raises(CorruptData):
                await call
    assert near.directories == {}


@virtual_clock
async def test_a_far_that_fails_half_way_breaks_the_closure_visibly() -> None:
    near, far = Scripted(), holding(*CLOSURE, breaks_at=2)
    async with cached(near, far) as cache:
        came, error = await closure_until_it_breaks(cache, ROOT.digest)
        assert came == [ROOT, MIDDLE]
        assert str(error) == "connection reset"
        assert near.directories == {}
        far.breaks_at = None
        assert await closure_of(cache, ROOT.digest) == WHOLE


@virtual_clock
async def test_what_near_was_given_meanwhile_makes_up_for_a_fill_that_fails() -> None:
    near, far = Scripted(), holding(*CLOSURE, waits_at=0, breaks_at=0)
    async with cached(near, far) as cache:
        first = asyncio.create_task(closure_of(cache, ROOT.digest))
        await asyncio.sleep(1)
        assert far.open_closures
        near.hold(CLOSURE)
        second = asyncio.create_task(closure_of(cache, ROOT.digest))
        await asyncio.sleep(1)
        far.go_on.set()
        assert await second == WHOLE
        with suppress(Unavailable):
            await first


@virtual_clock
async def test_readers_share_one_fill_and_the_slowest_paces_nobody() -> None:
    near, far = Scripted(), holding(*CLOSURE, after=1.0)
    async with cached(near, far) as cache:
        async with aclosing(cache.get_closure(ROOT.digest)) as slow:
            assert await anext(slow) == ROOT
            others = [closure_of(cache, ROOT.digest) for _ in range(3)]
            assert await asyncio.gather(*others) == [WHOLE] * 3
            await near.kept.wait()
            assert [each async for each in slow] == WHOLE[1:]
    assert far.calls == {"get_closure": 1}


@virtual_clock
async def test_a_closure_too_long_for_memory_goes_to_near_piece_by_piece() -> None:
    whole = long_closure(300)
    near, far = Scripted(), holding(*whole)
    async with cached(near, far, most_entries=50) as cache:
        async with aclosing(cache.get_closure(whole[0].digest)) as slow:
            assert await anext(slow) == whole[0]
            assert await closure_of(cache, whole[0].digest) == whole
            assert [each async for each in slow] == whole[1:]
        await filled(cache)
        assert near.directories == far.directories
    assert far.calls == {"get_closure": 1}


@virtual_clock
async def test_a_near_that_takes_nothing_is_passed_by() -> None:
    whole = long_closure(300)
    near, far = Scripted(full=StorageFull("no space left")), holding(*whole)
    metrics = Metrics()
    async with cached(near, far, metrics, most_entries=50) as cache:
        async with aclosing(cache.get_closure(whole[0].digest)) as slow:
            assert await anext(slow) == whole[0]
            assert await closure_of(cache, whole[0].digest) == whole
            # The window has gone on without it.
            assert [each async for each in slow] == whole[1:]
        assert await cache.get(whole[5].digest) == whole[5]
        near.full = None
        assert await closure_of(cache, whole[0].digest) == whole
        await filled(cache)
        assert near.directories == far.directories
    fills = {
        outcome: metrics.registry.get_sample_value("tvixstore_fills_total", {"outcome": outcome})
        for outcome in ("passed", "cancelled", "done")
    }
    # The first one may have been left alone before it came to its end.
    assert fills["done"] == 1
    assert (fills["passed"] or 0) + (fills["cancelled"] or 0) == 1


@virtual_clock
async def test_a_fill_is_stopped_when_nobody_comes_back() -> None:
    near, far = Scripted(), holding(*CLOSURE, waits_at=2)
    async with cached(near, far) as cache:
        for _ in range(3):
            async with aclosing(cache.get_closure(ROOT.digest)) as closure:
                assert await anext(closure) == ROOT
            await asyncio.sleep(LINGER - 1)
        assert far.calls == {"get_closure": 1}
        await asyncio.sleep(LINGER)
        assert far.open_closures == 0
        far.go_on.set()
        assert await closure_of(cache, ROOT.digest) == WHOLE


@virtual_clock
async def test_closing_the_cache_stops_its_fills() -> None:
    near, far = Scripted(), holding(*CLOSURE, waits_at=2)
    async with cached(near, far) as cache:
        reading = asyncio.create_task(closure_until_it_breaks(cache, ROOT.digest))
        await asyncio.sleep(1.0)
        await cache.aclose()
        came, error = await reading
    assert came == [ROOT, MIDDLE]
    assert isinstance(error, Unavailable) and "stopped" in str(error)


@virtual_clock
async def test_a_reader_may_leave_at_any_moment() -> None:
    for turns in range(25):
        near, far = holding(ROOT), holding(*CLOSURE)
        async with cached(near, far) as cache:
            reading = asyncio.create_task(closure_of(cache, ROOT.digest))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            assert await closure_of(cache, ROOT.digest) == WHOLE


@virtual_clock
async def test_what_near_lost_while_it_is_read_comes_from_far() -> None:
    near, far = holding(*CLOSURE, breaks_at=2, breaks_with=CorruptData("damaged")), Scripted()
    far.hold(CLOSURE)
    async with cached(near, far) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
