from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, chunks_of, cut, read, read_until_it_breaks
from tests.blob.stores import local_store
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.blob import BlobService, CachedBlobService, Chunk, MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, Incomplete, StorageFull, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.filling import LINGER
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream

KIB = 1 << 10
CHUNK = 100 * KIB


@asynccontextmanager
async def cached(
    near: BlobService, far: BlobService, metrics: Metrics | None = None
) -> AsyncIterator[CachedBlobService]:
    pools = Pools(files=2, cpu=1, dns=1)
    with TemporaryDirectory() as directory:
        cache = CachedBlobService(near, far, Path(directory), pools, metrics)
        try:
            yield cache
        finally:
            await cache.aclose()
            pools.close()


@virtual_clock
async def test_what_near_has_is_not_asked_of_far() -> None:
    near, far = Scripted(), Scripted()
    digest = near.hold(b"here")
    async with cached(near, far) as cache:
        assert await cache.has(digest)
        assert await cache.chunks(digest) == []
        assert await cache.read(digest) == b"here"
        assert await read(await cache.open_read(digest, 1, 2)) == b"er"
    assert not far.calls


@virtual_clock
async def test_what_near_lacks_comes_from_far_and_is_kept() -> None:
    near, far = Scripted(), Scripted()
    data = noise(700 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        assert await cache.has(digest)
        assert await read(await cache.open_read(digest)) == data
        await near.kept.wait()
        assert digest in near.blobs
        assert await cache.read(digest) == data
    assert far.calls["open_read"] == 1
    assert far.open_streams == 0


@virtual_clock
async def test_a_blob_known_to_be_short_needs_no_chunk_list() -> None:
    near, far = Scripted(), Scripted()
    digest = far.hold(b"short")
    async with cached(near, far) as cache:
        assert await cache.read(digest, 5) == b"short"
    assert far.calls["chunks"] == 0


@virtual_clock
async def test_absent_is_what_neither_has() -> None:
    near, far = Scripted(), Scripted()
    digest = Digest.of(b"nowhere")
    async with cached(near, far) as cache:
        assert await cache.open_read(digest) is None
        assert await cache.open_read(digest, 1, 1) is None
        assert await cache.read(digest, 7) is None
        assert await cache.chunks(digest) is None
        near.fails = OSError(5, "Input/output error")
        for call in (cache.open_read, cache.read, cache.has, cache.chunks):
            with pytest.raises(Unavailable, match="Input/output error"):
                await call(digest)
        near.fails, far.fails = None, Unavailable("down")
        for call in (cache.open_read, cache.read, cache.has, cache.chunks):
            with pytest.raises(Unavailable, match="down"):
                await call(digest)


@virtual_clock
async def test_chunks_that_near_has_are_not_fetched_and_fars_boundaries_are_kept() -> None:
    near, far = Scripted(), Scripted()
    data = noise(5 * CHUNK + 7)
    digest = far.hold(data, CHUNK)
    parts = cut(data, CHUNK)
    for part in parts[1:4]:
        near.hold(part)
    async with cached(near, far) as cache:
        assert await read(await cache.open_read(digest)) == data
    assert set(far.read_digests) == {Digest.of(parts[index]) for index in (0, 4, 5)}
    assert near.boundaries == [[CHUNK] * 5 + [7]]


@virtual_clock
async def test_chunks_are_fetched_several_at_a_time() -> None:
    near, far = Scripted(), Scripted(after=1.0, piece=CHUNK)
    digest = far.hold(noise(16 * 4 * KIB), 4 * KIB)
    async with cached(near, far) as cache:
        await read(await cache.open_read(digest))
    # One second for the list and one for sixteen chunks.
    assert now() < 3.0


@virtual_clock
async def test_readers_at_the_same_time_share_one_fill() -> None:
    near, far = Scripted(), Scripted(after=1.0)
    data = noise(300 * KIB)
    digest = far.hold(data)
    metrics = Metrics()
    async with cached(near, far, metrics) as cache:
        leaver = asyncio.create_task(cache.read(digest))
        others = [asyncio.create_task(cache.read(digest)) for _ in range(5)]
        await asyncio.sleep(1.5)
        leaver.cancel()
        await asyncio.wait([leaver])
        assert await asyncio.gather(*others) == [data] * 5
        await near.kept.wait()
        assert digest in near.blobs
    assert far.calls["open_read"] == 1
    assert metrics.registry.get_sample_value("tvixstore_fills_total", {"outcome": "done"}) == 1
    assert metrics.registry.get_sample_value("tvixstore_fills_running") == 0


def lying_lists(data: bytes) -> dict[str, list[Chunk]]:
    """Chunk lists that are not of `data`, though most of their chunks exist."""
    right = chunks_of(data, CHUNK)
    other = Chunk(Digest.of(b"other"), 5)
    return {
        "in another order": [right[1], right[0], *right[2:]],
        "one too few": right[:-1],
        "one too many": [*right, other],
        "another one instead": [*right[:-1], other],
        "too long a size": [*right[:-1], Chunk(right[-1].digest, right[-1].size + 1)],
        "too short a size": [Chunk(right[0].digest, right[0].size - 1), *right[1:]],
    }


@pytest.mark.parametrize("lie", lying_lists(noise(4 * CHUNK)))
def test_a_lying_chunk_list_breaks_the_stream_before_its_end(lie: str) -> None:
    @virtual_clock
    async def check() -> None:
        near, far = Scripted(), Scripted(piece=CHUNK)
        data = noise(4 * CHUNK)
        digest = far.hold(data, CHUNK)
        far.hold(b"other")
        far.lists[digest] = lying_lists(data)[lie]
        async with cached(near, far) as cache:
            came = b""
            with pytest.raises(CorruptData):
                stream = await cache.open_read(digest)
                assert stream is not None
                async with stream:
                    async for part in stream:
                        came += part
            assert came == data[: len(came)] or lie == "in another order"
            assert sum(chunk.size for chunk in far.lists[digest]) > len(came)
            with pytest.raises(CorruptData):
                await read(await cache.open_read(digest, 1, 5))
            assert digest not in near.blobs
        assert far.open_streams == 0

    check()


@virtual_clock
async def test_a_chunk_that_is_something_else_is_not_passed_on() -> None:
    near, far = Scripted(), Scripted(piece=CHUNK)
    data = noise(4 * CHUNK)
    digest = far.hold(data, CHUNK)
    parts = cut(data, CHUNK)
    far.lies[Digest.of(parts[2])] = noise(CHUNK, seed=1)
    async with cached(near, far) as cache:
        came, error = await read_until_it_breaks(await cache.open_read(digest))
    assert isinstance(error, CorruptData)
    assert came == data[: len(came)] and len(came) <= 2 * CHUNK
    assert digest not in near.blobs


@virtual_clock
async def test_a_blob_without_a_list_that_is_something_else_never_ends_well() -> None:
    near, far = Scripted(), Scripted(piece=64 * KIB)
    data = noise(900 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        for lie in (data[:-1], data + b"x", data[:-1] + b"x", b"", noise(10)):
            far.lies[digest] = lie
            with pytest.raises(CorruptData):
                assert len(await read(await cache.open_read(digest))) < len(data)
            with pytest.raises(CorruptData):
                await read(await cache.open_read(digest, 10, 10))
        assert digest not in near.blobs
        far.lies.clear()
        assert await cache.read(digest) == data


@virtual_clock
async def test_a_list_with_a_chunk_too_large_to_hold_is_left_aside() -> None:
    near, far = Scripted(), Scripted()
    digest = far.hold(b"abc")
    far.lists[digest] = [Chunk(Digest.of(b"huge"), 2**40)]
    async with cached(near, far) as cache:
        assert await cache.read(digest) == b"abc"


@virtual_clock
async def test_a_far_that_fails_in_mid_stream_breaks_it_visibly_and_leaves_nothing() -> None:
    near, far = Scripted(), Scripted(breaks_at=600 * KIB)
    data = noise(900 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        came, error = await read_until_it_breaks(await cache.open_read(digest))
        assert str(error) == "connection reset"
        assert came == data[: len(came)] and came
        assert digest not in near.blobs
        far.breaks_at = None
        assert await cache.read(digest) == data


async def test_the_slowest_reader_paces_nobody() -> None:
    near, far = Scripted(), Scripted(piece=256 * KIB)
    data = noise(6 << 20)
    digest = far.hold(data, 256 * KIB)
    async with cached(near, far) as cache:
        slow = await cache.open_read(digest)
        assert slow is not None
        first = await anext(slow)
        assert await cache.read(digest) == data
        await near.kept.wait()
        assert digest in near.blobs
        assert first + await slow.read_all() == data


@pytest.mark.parametrize("chunk", [None, 256 * KIB])
async def test_a_near_that_takes_nothing_is_passed_by(chunk: int | None) -> None:
    near, far = Scripted(full=StorageFull("no space left")), Scripted(piece=64 * KIB)
    data = noise(9 << 20)
    digest = far.hold(data, chunk)
    metrics = Metrics()
    async with cached(near, far, metrics) as cache:
        fast = asyncio.create_task(cache.read(digest))
        slow = await cache.open_read(digest)
        assert slow is not None
        first = await anext(slow)
        assert await fast == data
        # The window has gone on without it.
        assert first + await slow.read_all() == data
        assert await read(await cache.open_read(digest, 5_000_000, 99)) == data[5_000_000:][:99]
        assert digest not in near.blobs
        near.full = None
        assert await cache.read(digest) == data
        await near.kept.wait()
        assert digest in near.blobs
    value = metrics.registry.get_sample_value
    assert value("tvixstore_fills_total", {"outcome": "passed"}) == 1
    assert value("tvixstore_fills_total", {"outcome": "done"}) == 1
    assert far.open_streams == 0


async def test_passing_by_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    near, far = Scripted(full=StorageFull("no space left")), Scripted()
    digests = [far.hold(b"%d" % number) for number in range(5)]
    async with cached(near, far) as cache:
        for digest in digests:
            await cache.read(digest)
    said = [record for record in caplog.records if record.message == "cache.near_unwritable"]
    assert len(said) == 1


@virtual_clock
async def test_a_near_that_fails_half_way_is_passed_by() -> None:
    near, far = Scripted(), Scripted(waits_at=300 * KIB)
    data = noise(600 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        reading = asyncio.create_task(cache.read(digest))
        await asyncio.sleep(1.0)
        near.full = OSError(28, "No space left on device")
        far.go_on.set()
        assert await reading == data
        assert digest not in near.blobs


@virtual_clock
async def test_a_short_rest_is_fetched_for_nobody() -> None:
    near, far = Scripted(), Scripted(waits_at=CHUNK)
    data = noise(5 * CHUNK)
    digest = far.hold(data, CHUNK)
    far.waits_at = CHUNK // 2
    async with cached(near, far) as cache:
        reading = asyncio.create_task(cache.read(digest))
        await asyncio.sleep(1.0)
        reading.cancel()
        await asyncio.wait([reading])
        await asyncio.sleep(5 * LINGER)
        far.go_on.set()
        await near.kept.wait()
        assert digest in near.blobs


@virtual_clock
async def test_a_fill_that_may_be_long_is_stopped_when_nobody_comes_back() -> None:
    near, far = Scripted(), Scripted(waits_at=300 * KIB)
    data = noise(600 * KIB)
    digest = far.hold(data)
    metrics = Metrics()
    async with cached(near, far, metrics) as cache:
        for _ in range(3):
            # Somebody does, in time.
            stream = await cache.open_read(digest)
            assert stream is not None
            await anext(stream)
            await stream.aclose()
            await asyncio.sleep(LINGER - 1)
        assert far.calls["open_read"] == 1
        await asyncio.sleep(LINGER)
        assert far.open_streams == 0
        assert digest not in near.blobs
    value = metrics.registry.get_sample_value
    assert value("tvixstore_fills_total", {"outcome": "cancelled"}) == 1


@virtual_clock
async def test_closing_the_cache_stops_its_fills() -> None:
    near, far = Scripted(), Scripted(waits_at=300 * KIB)
    digest = far.hold(noise(600 * KIB))
    async with cached(near, far) as cache:
        whole = asyncio.create_task(cache.read(digest))
        part = asyncio.create_task(cache.open_read(digest, 5, 5))
        await asyncio.sleep(1.0)
        await cache.aclose()
        for reading in (whole, part):
            with pytest.raises(Unavailable, match="stopped"):
                await reading
    assert far.open_streams == 0


@virtual_clock
async def test_a_part_comes_only_when_the_whole_was_right() -> None:
    near, far = Scripted(), Scripted(waits_at=300 * KIB)
    data = noise(600 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        part = asyncio.create_task(cache.open_read(digest, 100, 50))
        await asyncio.sleep(1.0)
        assert not part.done()
        far.go_on.set()
        assert await read(await part) == data[100:150]
        assert digest in near.blobs
        assert await read(await cache.open_read(digest, 0, 10)) == data[:10]
        assert await read(await cache.open_read(digest, 700 * KIB)) == b""
    assert far.calls["open_read"] == 1


@virtual_clock
async def test_a_part_that_near_loses_right_after_the_fill_comes_from_far() -> None:
    near, far = Scripted(breaks_at=2000), Scripted()
    data = noise(5000)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        assert await read(await cache.open_read(digest, 100, 4000)) == data[100:4100]


@virtual_clock
async def test_what_near_lost_comes_from_far_from_there_on() -> None:
    data = noise(600 * KIB)
    for lost in (Incomplete("lost", bytes(32)), CorruptData("damaged"), OSError(5, "broken")):
        near, far = Scripted(breaks_at=200 * KIB, breaks_with=lost), Scripted()
        digest = near.hold(data)
        far.hold(data)
        async with cached(near, far) as cache:
            assert await read(await cache.open_read(digest)) == data
            assert await read(await cache.open_read(digest, 9, 500 * KIB)) == data[9:][: 500 * KIB]
            far.blobs.clear()
            came, error = await read_until_it_breaks(await cache.open_read(digest))
            assert came == data[: len(came)] and 200 * KIB <= len(came) < 202 * KIB
            assert isinstance(error, Unavailable)
        assert near.open_streams == far.open_streams == 0


@virtual_clock
async def test_a_reader_may_leave_at_any_moment() -> None:
    data = noise(300 * KIB)
    for turns in range(25):
        near, far = Scripted(), Scripted(piece=CHUNK)
        digest = far.hold(data, CHUNK)
        async with cached(near, far) as cache:
            reading = asyncio.create_task(cache.read(digest))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            assert await cache.read(digest) == data
        assert far.open_streams == near.open_streams == 0


async def test_a_local_near_without_room_is_left_as_it_was(tmp_path: Path) -> None:
    far = Scripted(piece=256 * KIB)
    data = noise(5 << 20)
    digest = far.hold(data, 256 * KIB)
    async with (
        local_store(tmp_path, max_size=2 << 20) as near,
        cached(near.blobs, far) as cache,
    ):
        assert await cache.read(digest) == data
        await cache.aclose()
        assert not await near.blobs.has(digest)
        assert near.files() == []


async def test_a_blob_is_kept_though_there_is_no_room_to_spool_it() -> None:
    near, far = Scripted(), Scripted(piece=256 * KIB)
    data = noise(8 << 20)
    digest = far.hold(data, 256 * KIB)
    async with cached(near, far) as cache:
        cache.directory.rmdir()
        slow = await cache.open_read(digest)
        assert slow is not None
        first = await anext(slow)
        assert await cache.read(digest) == data
        assert first + await slow.read_all() == data
        await near.kept.wait()
        assert digest in near.blobs
        cache.directory.mkdir()


class Endless(MemoryBlobService):
    """Has every blob, and comes to the end of none."""

    streams = 0

    async def chunks(self, digest: Digest) -> list[Chunk]:
        return []

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream:
        self.streams += 1
        return EndlessStream(self)


class EndlessStream(ByteStream):
    def __init__(self, blobs: Endless) -> None:
        self._blobs = blobs

    async def __anext__(self) -> bytes:
        await asyncio.sleep(1)
        return bytes(16 * KIB)

    async def aclose(self) -> None:
        self._blobs.streams -= 1


@pytest.mark.parametrize("read", [1, 400 * KIB])
@virtual_clock
async def test_a_blob_without_end_is_not_fetched_for_nobody(read: int) -> None:
    far = Endless()
    async with cached(Scripted(), far) as cache:
        # Little enough to be finished, if it were all.
        stream = await cache.open_read(Digest.of(b"endless"), size=300 * KIB)
        assert stream is not None
        async with stream:
            while read > 0:
                read -= len(await anext(stream))
        assert far.streams == 1
        async with asyncio.timeout(45):
            while far.streams:  # noqa: ASYNC110
                await asyncio.sleep(1)
