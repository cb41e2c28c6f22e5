"""What the wrappers do for blobs; the policies themselves are tested in `tests/policy`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from prometheus_client import generate_latest

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, read, read_until_it_breaks
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.blob import BlobService, BlobWriter, Chunk, MemoryBlobService
from tvixstore.blob.arrivals import AnnouncingBlobService
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.limit import LimitBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.racing import RacingBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, StorageFull, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Kind, Outcome
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.limit import Limit, Permits
from tvixstore.policy.negative import Absences, Arrivals
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout

DATA = noise(10_000)
DIGEST = Digest.of(DATA)

Call = Callable[[BlobService], Awaitable[object]]

READS: dict[str, Call] = {
    "has": lambda service: service.has(DIGEST),
    "chunks": lambda service: service.chunks(DIGEST),
    "open_read": lambda service: service.open_read(DIGEST),
    "read": lambda service: service.read(DIGEST),
}


def holder(**script: object) -> Scripted:
    service = Scripted(**script)  # type: ignore[arg-type]
    service.hold(DATA)
    return service


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_timeout_bounds_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        with pytest.raises(Unavailable, match="no answer within 5 s"):
            await call(TimeoutBlobService(holder(after=1e6), Timeout(5.0)))
        assert now() == 5.0

    run()


@virtual_clock
async def test_a_timeout_bounds_the_wait_for_a_streams_first_piece_and_never_the_stream() -> None:
    stalls = holder(waits_at=0)
    with pytest.raises(Unavailable, match="within 5 s"):
        await TimeoutBlobService(stalls, Timeout(5.0)).open_read(DIGEST)
    assert stalls.open_streams == 0
    slow = holder(waits_at=1000)
    stream = await TimeoutBlobService(slow, Timeout(5.0)).open_read(DIGEST)
    asyncio.get_running_loop().call_later(3600.0, slow.go_on.set)
    assert await read(stream) == DATA


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_retry_asks_again_for_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = holder(fails=Unavailable("down"))
        asyncio.get_running_loop().call_later(0.01, setattr, inner, "fails", None)
        assert await call(RetryBlobService(inner, Retry(3, 0.1, random=Random(5)))) is not None

    run()


@virtual_clock
async def test_a_retry_begins_a_stream_again_until_its_first_piece_came() -> None:
    inner = holder(breaks_at=0)
    asyncio.get_running_loop().call_later(0.01, setattr, inner, "breaks_at", None)
    service = RetryBlobService(inner, Retry(3, 0.1, random=Random(5)))
    assert await read(await service.open_read(DIGEST)) == DATA
    inner.breaks_at = 2000
    came, _ = await read_until_it_breaks(await service.open_read(DIGEST))
    assert came == DATA[:2000] and inner.open_streams == 0


@virtual_clock
async def test_a_retry_repeats_writes_of_what_it_has_whole() -> None:
    inner = Scripted(full=Unavailable("down"))
    asyncio.get_running_loop().call_later(0.01, setattr, inner, "full", None)
    service = RetryBlobService(inner, Retry(3, 0.1, random=Random(5)))
    assert await service.put(DATA) == DIGEST
    # A stream is gone by then.
    inner.full = Unavailable("down")
    with pytest.raises(Unavailable):
        async with await service.open_write() as writer:
            await writer.write(DATA)


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_breaker_spares_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = holder(fails=Unavailable("down"))
        service = BreakerBlobService(inner, Breaker(failures=1))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await call(service)
        assert inner.calls.total() == 1

    run()


@virtual_clock
async def test_streams_and_writers_that_break_open_the_breaker() -> None:
    breaker = Breaker(failures=2)
    service = BreakerBlobService(holder(breaks_at=2000), breaker)
    for _ in range(2):
        await read_until_it_breaks(await service.open_read(DIGEST))
        # That opening it worked starts the count anew.
        assert not breaker.is_open
    breaker = Breaker(failures=1)
    service = BreakerBlobService(Scripted(full=Unavailable("gone")), breaker)
    with pytest.raises(Unavailable, match="gone"):
        async with await service.open_write() as writer:
            await writer.write(DATA)
    assert breaker.is_open
    full = BreakerBlobService(Scripted(full=StorageFull("full")), Breaker(failures=1))
    for _ in range(2):
        with pytest.raises(StorageFull):
            await full.put(DATA)


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_what_was_absent_is_not_asked_for_again_for_a_while(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = Scripted()
        service = NegativeBlobService(inner, Absences(ttl=60.0))
        for _ in range(3):
            assert not await call(service)
        assert inner.calls.total() == 1
        inner.hold(DATA)
        await asyncio.sleep(60.0)
        assert await call(service) is not None

    run()


WRITES: dict[str, Call] = {
    "put": lambda service: service.put(DATA),
    "put_many": lambda service: service.put_many([DATA]),
    "open_write": lambda service: _stream_in(service),
}


async def _stream_in(service: BlobService) -> Digest:
    async with await service.open_write() as writer:
        await writer.write(DATA)
        return await writer.close()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_absence_is_forgotten_when_somebody_brings_the_blob(write: Call) -> None:
    class Cuts(Scripted):
        """Cuts what it is given."""

        async def chunks(self, digest: Digest) -> Any:
            return self.lists.get(digest) or await super().chunks(digest)

    @virtual_clock
    async def run() -> None:
        inner = Cuts()
        chunk = Digest.of(DATA[:5000])
        arrivals: Arrivals[Digest] = Arrivals()
        service = NegativeBlobService(inner)
        arrivals.subscribe(service.absences)
        store = AnnouncingBlobService(inner, arrivals)
        # Once through the node itself, and once on another way through the composition.
        for through in (service, store):
            inner.blobs.pop(DIGEST, None)
            inner.blobs.pop(chunk, None)
            inner.lists.clear()
            service.absences.forget()
            assert not await service.has(DIGEST) and not await service.has(chunk)
            asyncio.get_running_loop().call_soon(inner.hold, DATA, 5000)
            await asyncio.sleep(0)
            await write(through)
            assert await service.has(DIGEST)
            # And with it its chunks.
            assert await service.has(chunk)

    run()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_absence_is_forgotten_though_nobody_hears_that_the_blob_came(write: Call) -> None:
    class LosesTheAnswer(Scripted):
        async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
            return _Mute(await super().open_write(boundaries))

    @virtual_clock
    async def run() -> None:
        inner = LosesTheAnswer()
        arrivals: Arrivals[Digest] = Arrivals()
        service = NegativeBlobService(inner)
        arrivals.subscribe(service.absences)
        for through in (service, AnnouncingBlobService(inner, arrivals)):
            inner.blobs.pop(DIGEST, None)
            service.absences.forget()
            assert not await service.has(DIGEST)
            with pytest.raises(Unavailable, match="disconnected"):
                await write(through)
            assert await service.has(DIGEST)

    run()


@dataclass(eq=False)
class _Mute(BlobWriter):
    """Commits, and does not say so."""

    inner: BlobWriter

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def close(self) -> Digest:
        await self.inner.close()
        raise Unavailable("disconnected")

    async def abort(self) -> None:
        await self.inner.abort()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_absence_is_forgotten_though_whoever_brought_the_blob_has_left(write: Call) -> None:
    class IsSlowWithLists(Scripted):
        async def chunks(self, digest: Digest) -> list[Chunk] | None:
            await asyncio.sleep(60.0)
            return await super().chunks(digest)

    @virtual_clock
    async def run() -> None:
        inner = IsSlowWithLists()
        arrivals: Arrivals[Digest] = Arrivals()
        service = NegativeBlobService(inner)
        arrivals.subscribe(service.absences)
        for through in (service, AnnouncingBlobService(inner, arrivals)):
            inner.blobs.pop(DIGEST, None)
            service.absences.forget()
            assert not await service.has(DIGEST)
            writing = asyncio.ensure_future(write(through))
            await asyncio.sleep(1.0)
            assert DIGEST in inner.blobs
            writing.cancel()
            await asyncio.wait([writing])
            assert await service.has(DIGEST)

    run()


@virtual_clock
async def test_absences_are_forgotten_on_demand() -> None:
    inner = Scripted()
    service = NegativeBlobService(inner)
    assert not await service.has(DIGEST)
    inner.hold(DATA)
    assert not await service.has(DIGEST)
    service.absences.forget()
    assert await service.has(DIGEST)


@virtual_clock
async def test_who_copies_within_one_store_under_a_limit_of_one_gets_through() -> None:
    service = LimitBlobService(holder(), Limit(Permits(1)))
    stream = await service.open_read(DIGEST)
    assert stream is not None
    async with stream, await service.open_write() as writer:
        async for part in stream:
            await writer.write(part + b"!")
        await writer.close()
    assert await service.has(DIGEST)


@virtual_clock
async def test_two_tiers_that_share_a_member_under_limits_of_one_do_not_deadlock() -> None:
    """The disk is near, and a member of a mirror and of a race further on."""
    disk, office = MemoryBlobService(), holder()
    one = LimitBlobService(disk, Limit(Permits(1)))
    two = LimitBlobService(office, Limit(Permits(1)))
    inner = RacingBlobService([one, two], ["one", "two"], Hedging(0.0))
    outer = FallbackBlobService([one, inner, two], ["one", "inner", "two"])
    mirror = MirrorBlobService([one, outer], ["one", "outer"], 1)
    async with asyncio.timeout(600.0):
        for _ in range(3):
            streams = [await mirror.open_read(DIGEST) for _ in range(4)]
            assert [await read(stream) for stream in streams] == [DATA] * 4
            await asyncio.gather(*[mirror.put(noise(5000, seed)) for seed in range(4)])
    await mirror.aclose()
    for limited in (one, two):
        assert limited.limit.permits is not None and limited.limit.permits.in_use == 0


def chaotic(*script: Outcome, **given: object) -> ChaosBlobService:
    chaos = Chaos(script=[(outcome, 1) for outcome in script])
    return ChaosBlobService(holder(**given), chaos)


@virtual_clock
async def test_chaos_does_to_blobs_what_its_script_says() -> None:
    kinds: tuple[Kind, ...] = ("ok", "absent", "truncate", "corrupt", "disconnect", "error", "ok")
    service = chaotic(*[Outcome(kind) for kind in kinds])
    came: list[object] = []
    for _ in kinds:
        try:
            data = await service.read(DIGEST)
        except Unavailable as error:
            came.append(str(error))
            continue
        came.append(data if data is None or data == DATA else len(data))
    truncated, corrupt = came[2], came[3]
    assert came[:2] == [DATA, None] and came[4:] == [
        "chaos: disconnected",
        "chaos: error",
        DATA,
    ]
    assert isinstance(truncated, int) and truncated < len(DATA)
    assert corrupt == len(DATA)


@virtual_clock
async def test_chaos_stalls_until_somebody_gives_up() -> None:
    service = TimeoutBlobService(chaotic(Outcome("stall"), Outcome("stall")), Timeout(5.0))
    with pytest.raises(Unavailable, match="within 5 s"):
        await service.has(DIGEST)


@virtual_clock
async def test_a_write_that_chaos_disconnects_may_have_been_done() -> None:
    service = ChaosBlobService(Scripted(), Chaos(script=[(Outcome("disconnect"), 1)]))
    with pytest.raises(Unavailable, match="after it was done"):
        await service.put(DATA)
    assert await service.has(DIGEST)


@virtual_clock
async def test_no_reader_of_members_believes_chaos() -> None:
    kinds: tuple[Kind, ...] = ("truncate", "corrupt", "disconnect")
    for kind in kinds:
        faulty = ChaosBlobService(holder(), Chaos(script=[(Outcome(kind), None)]))
        service = FallbackBlobService([faulty, holder()], ["faulty", "healthy"])
        for _ in range(3):
            try:
                assert await service.read(DIGEST) == DATA
            except CorruptData:
                assert kind in ("corrupt", "truncate")


@virtual_clock
async def test_calls_are_counted_with_their_outcomes_and_bytes() -> None:
    metrics = Metrics()
    service = MeteredBlobService(holder(), metrics.node("blob", "office"))
    await service.read(DIGEST)
    await read(await service.open_read(DIGEST))
    assert not await service.has(Digest.of(b"nobody has it"))
    inner = holder(breaks_at=2000)
    await read_until_it_breaks(
        await MeteredBlobService(inner, metrics.node("blob", "office")).open_read(DIGEST)
    )
    text = generate_latest(metrics.registry).decode()
    counted = dict(
        re.findall(r'node_calls_total{call="(\w+)",.*outcome="(\w+)",service="blob"} 1.0', text)
    )
    assert counted == {"read": "present", "has": "absent", "stream": "unknown"} | counted
    assert 'tvixstore_node_bytes_total{node="office",service="blob"} 22000.0' in text
