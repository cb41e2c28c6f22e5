from __future__ import annotations

import asyncio

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.policy.limit import Limit, LimitedStream, Permits, TokenBucket, limited
from tvixstore.streams import BytesStream, ByteStream


async def opened(*parts: bytes) -> ByteStream | None:
    return BytesStream(*parts)


@virtual_clock
async def test_no_more_than_so_many_at_a_time_and_in_turn() -> None:
    permits, order = Permits(2), []

    async def work(number: int) -> None:
        permit = await permits.acquire()
        order.append((number, now()))
        await asyncio.sleep(1.0)
        permit.release()
        permit.release()

    await asyncio.gather(*[work(number) for number in range(5)])
    assert order == [(0, 0.0), (1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    assert (permits.peak, permits.in_use, permits.loans) == (2, 0, 0)


@virtual_clock
async def test_who_leaves_the_queue_takes_no_permit() -> None:
    permits = Permits(1)
    first = await permits.acquire()
    waiting = [asyncio.create_task(permits.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    # One in the queue, and one in the moment in which it gets its permit.
    waiting[0].cancel()
    first.release()
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert permits.in_use == 0
    (await permits.acquire()).release()


@virtual_clock
async def test_a_stream_holds_its_permit_until_it_is_closed() -> None:
    limit = Limit(Permits(1, patience=1e9))
    assert limit.permits is not None
    stream = await limited(limit, lambda: opened(b"a", b"b"))
    assert stream is not None
    assert await anext(stream) == b"a"
    assert limit.permits.in_use == 1
    waiting = asyncio.create_task(limited(limit, lambda: opened(b"c")))
    await asyncio.sleep(100.0)
    assert not waiting.done()
    await stream.aclose()
    other = await waiting
    assert other is not None and await other.read_all() == b"c"
    await stream.aclose()
    assert limit.permits.in_use == 0


@virtual_clock
async def test_what_is_absent_or_fails_gives_its_permit_back() -> None:
    limit = Limit(Permits(1))

    async def absent() -> ByteStream | None:
        return None

    async def fails() -> ByteStream | None:
        raise OSError("x")

    for _ in range(3):
        assert await limited(limit, absent) is None
        with pytest.raises(OSError, match="x"):
            await limited(limit, fails)


@virtual_clock
async def test_a_stream_that_nobody_reads_lends_its_permit() -> None:
    limit = Limit(Permits(1, patience=1.0))
    assert limit.permits is not None
    stream = await limited(limit, lambda: opened(b"a", b"b"))
    assert stream is not None
    await anext(stream)
    async with limit.held():
        assert now() == 1.0
        # Its reader is back before the one it lent to is done: both go on.
        assert await anext(stream) == b"b"
    await stream.aclose()
    assert (limit.permits.in_use, limit.permits.loans) == (0, 1)


@virtual_clock
async def test_one_who_works_lends_nothing() -> None:
    class Slow(BytesStream):
        async def __anext__(self) -> bytes:
            await asyncio.sleep(50.0)
            return await super().__anext__()

    limit = Limit(Permits(1, patience=1.0))

    async def slow() -> ByteStream | None:
        return Slow(b"a")

    stream = await limited(limit, slow)
    assert isinstance(stream, LimitedStream)
    reading = asyncio.create_task(stream.read_all())
    await asyncio.sleep(0)
    async with limit.held():
        assert now() == 100.0
    assert await reading == b"a"


@virtual_clock
async def test_bytes_come_at_the_rate_after_a_short_burst() -> None:
    bucket = TokenBucket(1_000_000)
    await bucket.pay(200_000)
    assert now() == 0.0
    for _ in range(100):
        await bucket.pay(100_000)
    assert now() == pytest.approx(10.0, abs=0.3)
    # What was not used is not saved up for long.
    await asyncio.sleep(3600.0)
    begun = now()
    for _ in range(100):
        await bucket.pay(100_000)
    assert now() - begun == pytest.approx(10.0, abs=0.3)


@virtual_clock
async def test_readers_share_the_rate() -> None:
    limit = Limit.of(None, 1_000_000)

    async def read() -> None:
        stream = await limited(limit, lambda: opened(*[bytes(100_000)] * 10))
        assert stream is not None
        await stream.read_all()

    await asyncio.gather(*[read() for _ in range(5)])
    assert now() == pytest.approx(5.0, abs=0.3)
