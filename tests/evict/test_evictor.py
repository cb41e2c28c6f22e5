"""Who goes first, down to which mark, and when it stops."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.evict.stores import LocalStore, open_store
from tests.nar.trees import File
from tests.pathinfo.samples import store_path
from tests.support.until import until
from tvixstore.errors import StorageFull
from tvixstore.evict import Candidates, Evictor, Limits, pinned_closures
from tvixstore.evict.limits import HIGH, LOW
from tvixstore.metrics import Metrics
from tvixstore.policy.tasks import end

EACH = 200_000
MAX = 11 * EACH


def names(*numbers: int) -> list[str]:
    return [f"path-{number}" for number in numbers]


async def fill(store: LocalStore, *numbers: int) -> None:
    for number in numbers:
        await store.add(f"path-{number}", File(random.Random(number).randbytes(EACH)))


async def present(store: LocalStore) -> list[int]:
    """Numbers of the paths that are there; asking does not count as reading them."""
    found = [info async for info in store.path_infos.list()]
    return sorted(int(info.store_path.name.removeprefix("path-")) for info in found)


@asynccontextmanager
async def evicting(
    store: LocalStore,
    *,
    max_size: int | None = MAX,
    min_free: int = 0,
    max_age: float | None = None,
) -> AsyncIterator[Evictor]:
    pins, path_infos = store.engine.table("pins"), store.engine.table("pathinfos")
    evictor = Evictor(
        Limits(store.guard, max_size, min_free),
        store.guard,
        Candidates(store.engine.table("access"), store.access, pinned_closures(pins, path_infos)),
        path_infos,
        store.collector,
        store.access,
        Metrics(),
        max_age=max_age,
    )
    task = asyncio.create_task(evictor.run())
    try:
        await asyncio.sleep(0)
        yield evictor
    finally:
        await end([task])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    async with open_store(tmp_path, max_size=int(HIGH * MAX)) as store:
        yield store


async def test_the_path_read_longest_ago_makes_room_for_the_new_one(store: LocalStore) -> None:
    async with evicting(store):
        await fill(store, *range(9))
        assert await store.path_infos.get(store_path("path-0").hash) is not None
        # These do not fit without others going; a writer waits for that.
        await fill(store, 9, 10, 11)
        found = await present(store)
        assert found[0] == 0 and found[-3:] == [9, 10, 11] and 1 not in found
        assert sum(store.guard.used().values()) <= HIGH * MAX
    assert await store.problems() == []


async def test_a_run_ends_at_the_low_mark(store: LocalStore) -> None:
    await fill(store, *range(10))
    used = sum(store.guard.used().values())
    async with evicting(store, max_size=int(used / HIGH) - 1) as evictor:
        assert evictor.can_make(0)
        await evictor.make(1)
    left = sum(store.guard.used().values())
    assert LOW * used / HIGH - 2 * EACH < left <= LOW * used / HIGH


async def test_pinned_paths_and_what_is_held_stay(store: LocalStore) -> None:
    await fill(store, *range(9))
    await store.engine.table("pins").apply([(store_path("path-0").hash, b"")])
    info = await store.path_infos.get(store_path("path-1").hash)
    assert info is not None
    stream = await store.path_infos.open_nar(info)
    assert stream is not None
    store.access.forget(store_path("path-1").hash)
    async with stream, evicting(store):
        await fill(store, *range(9, 20))
        found = await present(store)
        assert 0 in found and 1 in found and 19 in found and len(found) <= 10
        assert len(await stream.read_all()) == info.nar_size


async def test_where_everything_is_in_use_writing_fails_as_before(store: LocalStore) -> None:
    async with evicting(store), AsyncExitStack() as holding:
        await fill(store, *range(10))
        async for info in store.path_infos.list():
            await holding.enter_async_context(store.content.keeping(info.node))
        with pytest.raises(StorageFull):
            await fill(store, 10)
        assert await present(store) == list(range(10))
        await holding.aclose()
        await fill(store, 20)
        assert 20 in await present(store)
    assert await store.problems() == []


async def test_what_nobody_reads_for_long_goes_though_there_is_room(store: LocalStore) -> None:
    await fill(store, 0, 1)
    old = (1).to_bytes(8, "big")
    await store.engine.table("access").apply([(store_path("path-0").hash, old)])
    store.access.forget(store_path("path-0").hash)
    async with evicting(store, max_size=None, max_age=3600.0) as evictor:
        await until(lambda: store.rows()["pathinfos"] == 1)
        assert evictor.can_make(0)
    assert await present(store) == [1]


async def test_what_was_read_before_the_clock_was_set_back_goes_first(store: LocalStore) -> None:
    await fill(store, *range(9))
    ahead = int(time.time()) + 10**8
    row = ahead.to_bytes(8, "big")
    for number in range(1, 9):
        key = store_path(f"path-{number}").hash
        await store.engine.table("access").apply([(key, row)])
        store.access.forget(key)
    async with evicting(store):
        await fill(store, 9, 10, 11)
        found = await present(store)
        assert found[0] == 0 and found[-3:] == [9, 10, 11] and len(found) <= 10
    async with evicting(store, max_size=None, max_age=3600.0) as evictor:
        # How long ago they were read nobody knows.
        await evictor._evict_old()
        assert await present(store) == found


async def test_who_waits_is_let_go_when_nothing_can_be_evicted(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, *range(10))

    async def fail(path_hashes: object) -> None:
        raise StorageFull("no room to delete anything")

    monkeypatch.setattr(store.freeing, "evict", fail)
    monkeypatch.setattr("tvixstore.evict.evictor.INTERVAL", 1000.0)
    async with evicting(store), asyncio.timeout(20):
        with pytest.raises(StorageFull):
            await fill(store, 10, 11)


async def test_a_store_that_fills_for_the_first_time_does_not_give_up(store: LocalStore) -> None:
    async with evicting(store) as evictor:
        with store.holds.session():
            await store.blobs.put(random.Random(0).randbytes(10 * EACH))
            # Nothing can go, as no path is here yet: that is not for long.
            await evictor.make(EACH)
            assert evictor.can_make(EACH)
    assert store.rows()["chunks"] > 0


async def test_orphans_go_before_any_path_does(store: LocalStore) -> None:
    await fill(store, *range(5))
    for number in range(100, 104):
        await store.blobs.put(random.Random(number).randbytes(EACH))
    store.holds.turn()
    store.holds._recent.clear()
    store.references.now = lambda: 1e11
    async with evicting(store):
        await fill(store, 5, 6, 7)
        assert await present(store) == list(range(8))


async def test_no_more_than_half_of_the_store_goes_for_what_others_take(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(store, *range(10))
    async with evicting(store, max_size=None, min_free=1 << 60) as evictor:
        evictor.can_make(0)
        await until(lambda: "eviction.stopped" in caplog.messages)
        left = await present(store)
        assert 3 <= len(left) <= 6 and 9 in left
        assert not evictor.can_make(1)
    assert await store.problems() == []
