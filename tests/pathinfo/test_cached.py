from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read, read_until_it_breaks
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, Incomplete, StorageFull, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.cached import CachedPathInfoService

MISSING = Incomplete("a blob is missing", bytes(32))


def empty(**script: object) -> Scripted:
    return Scripted(None, puts=[], **script)  # type: ignore[arg-type]


@virtual_clock
async def test_what_near_has_is_not_asked_of_far() -> None:
    far = Scripted()
    cache = CachedPathInfoService(Scripted(), far)
    assert await cache.describe(KEY) == info_of()
    assert await cache.get(KEY) == info_of()
    assert await read(await cache.open_nar(info_of(), 30, 40)) == nar_of()[30:70]
    assert far.calls == []


@virtual_clock
async def test_what_near_lacks_comes_from_far_and_is_kept() -> None:
    near, far = empty(), Scripted()
    cache = CachedPathInfoService(near, far)
    assert await cache.describe(KEY) == info_of()
    assert near.puts == []
    assert await cache.get(KEY) == info_of()
    assert near.puts == [info_of()]
    assert await cache.get(KEY) == info_of()
    assert far.asked("get") == 1


@virtual_clock
async def test_a_nar_from_far_is_to_be_kept_in_near() -> None:
    near, far = empty(), Scripted()
    cache = CachedPathInfoService(near, far)
    assert await read(await cache.open_nar(info_of(), 30, 40)) == nar_of()[30:70]
    assert far.into is near


@virtual_clock
async def test_another_nar_than_nears_is_asked_of_far() -> None:
    other = info_of("other")
    cache = CachedPathInfoService(Scripted(), Scripted(other, seed="other"))
    assert await cache.describe(KEY, other.nar_sha256) == other
    assert await read(await cache.open_nar(other)) == nar_of("other")


@virtual_clock
async def test_absent_is_what_neither_has() -> None:
    cache = CachedPathInfoService(empty(), Scripted(None))
    assert await cache.describe(KEY) is None
    assert await cache.get(KEY) is None
    assert await cache.open_nar(info_of()) is None


@virtual_clock
async def test_callers_at_the_same_time_share_one_fetch() -> None:
    near, far = empty(), Scripted(after=1.0)
    cache = CachedPathInfoService(near, far)
    leaver = asyncio.create_task(cache.get(KEY))
    others = [asyncio.create_task(cache.get(KEY)) for _ in range(3)]
    await asyncio.sleep(0.5)
    leaver.cancel()
    await asyncio.wait([leaver])
    assert await asyncio.gather(*others) == [info_of()] * 3
    assert far.asked("get") == 1
    assert near.puts == [info_of()]


@virtual_clock
async def test_closing_ends_a_fetch_under_way() -> None:
    cache = CachedPathInfoService(empty(), Scripted(after=None))
    caller = asyncio.create_task(cache.get(KEY))
    await asyncio.sleep(1.0)
    await cache.aclose()
    with pytest.raises(Unavailable):
        await caller


@pytest.mark.parametrize(
    "error", [StorageFull("full"), Unavailable("locked"), OSError("input/output error")], ids=str
)
def test_a_near_that_takes_nothing_costs_nothing_but_the_keeping(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()

    @virtual_clock
    async def run() -> None:
        near, far = Scripted(None, puts=error), Scripted()
        cache = CachedPathInfoService(near, far, metrics.node("pathinfo", "cache"))
        for _ in range(3):
            assert await cache.get(KEY) == info_of()
        near.puts = []
        assert await cache.get(KEY) == info_of()

    with caplog.at_level("INFO", "tvixstore"):
        run()
    events = [record.getMessage() for record in caplog.records]
    assert events == ["cache.near_unwritable", "cache.near_writable"]
    labels = {"service": "pathinfo", "node": "cache", "call": "keep", "outcome": "unknown"}
    assert metrics.registry.get_sample_value("tvixstore_node_calls_total", labels) == 3


@pytest.mark.parametrize("error", [Unavailable("locked"), OSError("input/output error")], ids=str)
def test_a_near_that_cannot_say_is_passed_over(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_clock
    async def run() -> None:
        near, far = Scripted(error, puts=[]), Scripted()
        cache = CachedPathInfoService(near, far)
        assert await cache.describe(KEY) == info_of()
        assert await read(await cache.open_nar(info_of())) == nar_of()
        assert await cache.get(KEY) == info_of()
        near.says, far.says = error, None
        with pytest.raises(Unavailable, match=str(error)):
            await cache.describe(KEY)
        with pytest.raises(Unavailable, match=str(error)):
            await cache.get(KEY)
        with pytest.raises(Unavailable, match=str(error)):
            await cache.open_nar(info_of())

    run()
    events = [record.getMessage() for record in caplog.records]
    assert events == ["cache.near_unreadable", "cache.near_cannot_serve"]


@pytest.mark.parametrize(
    "error", [MISSING, CorruptData("a chunk is wrong"), OSError("input/output error")], ids=str
)
@pytest.mark.parametrize("breaks_at", [0, 40, 90])
@pytest.mark.parametrize(("offset", "length"), [(0, None), (5, None), (0, 95), (5, 90)])
def test_content_that_near_has_lost_comes_from_far_in_mid_stream(
    error: Exception, breaks_at: int, offset: int, length: int | None
) -> None:
    @virtual_clock
    async def run() -> None:
        near, far = Scripted(breaks_at=breaks_at, breaks_with=error), Scripted()
        cache = CachedPathInfoService(near, far)
        end = None if length is None else offset + length
        assert await read(await cache.open_nar(info_of(), offset, length)) == nar_of()[offset:end]
        assert far.into is near
        assert (near.open_streams, far.open_streams) == (0, 0)

    run()


@virtual_clock
async def test_content_that_is_nowhere_is_a_broken_stream_and_not_a_short_one() -> None:
    near = Scripted(breaks_at=40, breaks_with=MISSING)
    cache = CachedPathInfoService(near, Scripted(None))
    stream = await cache.open_nar(info_of())
    assert stream is not None
    async with stream:
        with pytest.raises(Incomplete, match="a blob is missing"):
            await stream.read_all()
    assert near.open_streams == 0


@virtual_clock
async def test_a_far_that_breaks_too_breaks_the_stream() -> None:
    near, far = Scripted(breaks_at=40, breaks_with=MISSING), Scripted(breaks_at=70)
    cache = CachedPathInfoService(near, far)
    assert await read_until_it_breaks(await cache.open_nar(info_of())) == nar_of()[:70]
    assert (near.open_streams, far.open_streams) == (0, 0)


@virtual_clock
async def test_a_reader_may_leave_while_far_is_opened() -> None:
    near, far = Scripted(breaks_at=0, breaks_with=MISSING), Scripted(after=None)
    cache = CachedPathInfoService(near, far)
    reading = asyncio.create_task(read(await cache.open_nar(info_of())))
    await asyncio.sleep(1.0)
    reading.cancel()
    await asyncio.wait([reading])
    assert near.open_streams == 0
    assert now() == 1.0


@virtual_clock
async def test_puts_and_lists_are_nears() -> None:
    near, far = MemoryPathInfoService(), Scripted(puts=[])
    cache = CachedPathInfoService(near, far)
    assert await cache.put(info_of()) == info_of()
    infos: AsyncGenerator[PathInfo, None] = cache.list()
    assert [info async for info in infos] == [info_of()]
    assert far.calls == []
