"""What has hurt other stores, of blobs; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, chunks_of, cut, read, read_until_it_breaks
from tests.blob.test_cached import CHUNK, KIB, cached
from tests.evict.stores import open_store
from tests.nar.trees import File
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import CachedBlobService
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.policy.breaker import Breaker

DATA = noise(600 * KIB)


@virtual_clock
async def test_a_follower_that_leaves_in_mid_blob_does_not_cancel_the_leader() -> None:
    near, far = Scripted(), Scripted(waits_at=300 * KIB)
    digest = far.hold(DATA)
    async with cached(near, far) as cache:
        leading = asyncio.create_task(cache.read(digest))
        await asyncio.sleep(1.0)
        follower = await cache.open_read(digest)
        assert follower is not None
        assert DATA.startswith(await anext(follower))
        waiting = asyncio.create_task(cache.read(digest))
        await asyncio.sleep(1.0)
        waiting.cancel()
        await follower.aclose()
        await asyncio.wait([waiting])
        far.go_on.set()
        assert await leading == DATA
        await near.kept.wait()
    assert far.calls["open_read"] == 1 and digest in near.blobs


async def test_what_a_fill_found_in_near_is_not_evicted_before_it_ends(tmp_path: Path) -> None:
    far = Scripted(piece=CHUNK, waits_at=0)
    # So short that each is one chunk, also as a file of its own.
    data, size = noise(200 * 30 * KIB), 30 * KIB
    digest = far.hold(data, size)
    shared = cut(data, size)[:180]
    for part in shared:
        del far.blobs[Digest.of(part)]
    async with open_store(tmp_path / "state") as store:
        await store.add("one", {b"%d" % number: File(part) for number, part in enumerate(shared)})
        spool = tmp_path / "spool"
        spool.mkdir()
        cache = CachedBlobService(store.blobs, far, spool, store.pools, holds=store.holds)
        stream, came = await cache.open_read(digest), b""
        assert stream is not None
        while len(came) < 175 * size:
            came += await anext(stream)
        # They were found in near, which is the only place that has them.
        assert not {Digest.of(part) for part in shared} & set(far.read_digests)
        await store.time_passes()
        assert await store.evict("one") == 1
        far.go_on.set()
        assert came + await stream.read_all() == data
        await asyncio.gather(*cache._fills._filling._tasks)
        await cache.aclose()
        assert await store.blobs.read(digest) == data
        assert await store.problems() == []


@virtual_clock
async def test_a_far_that_had_it_when_it_was_asked_and_not_when_it_is_read() -> None:
    near, far = Scripted(), Scripted()
    digest = far.hold(DATA)
    async with cached(near, far) as cache:
        assert await cache.has(digest)
        lost = far.blobs.pop(digest)
        assert await cache.open_read(digest) is None
        assert await cache.read(digest) is None
        far.blobs[digest] = lost
        # The fill that found nothing is over, and stands in nobody's way.
        assert await cache.read(digest) == DATA


@virtual_clock
async def test_a_far_that_tells_chunks_and_then_has_them_no_more() -> None:
    near, far = Scripted(), Scripted(piece=CHUNK)
    digest = far.hold(DATA, CHUNK)
    chunks = chunks_of(DATA, CHUNK)
    async with cached(near, far) as cache:
        assert await cache.chunks(digest) == chunks
        lost = far.blobs.pop(chunks[3].digest)
        came, error = await read_until_it_breaks(await cache.open_read(digest))
        assert isinstance(error, Unavailable) and "not to be had" in str(error)
        assert came == DATA[: len(came)] and 0 < len(came) <= 3 * CHUNK
        with pytest.raises(Unavailable):
            await read(await cache.open_read(digest, 5, 5))
        assert digest not in near.blobs
        far.blobs[chunks[3].digest] = lost
        assert await cache.read(digest) == DATA
    assert far.open_streams == 0


@virtual_clock
async def test_a_far_that_has_another_list_when_it_is_asked_again() -> None:
    near, far = Scripted(), Scripted(piece=CHUNK)
    digest = far.hold(DATA, CHUNK)
    async with cached(near, far) as cache:
        assert await cache.chunks(digest) == chunks_of(DATA, CHUNK)
        far.lists[digest] = chunks_of(noise(600 * KIB, seed=1), CHUNK)
        with pytest.raises((CorruptData, Unavailable)):
            await read(await cache.open_read(digest))
        assert digest not in near.blobs
        far.hold(DATA, 2 * CHUNK)
        assert await cache.read(digest) == DATA


@virtual_clock
async def test_what_near_had_when_it_was_asked_and_not_when_it_is_read_comes_from_far() -> None:
    near, far = Scripted(), Scripted()
    digest = near.hold(DATA)
    far.hold(DATA)
    async with cached(near, far) as cache:
        assert await cache.has(digest) and await cache.chunks(digest) is not None
        assert not far.calls
        near.blobs.clear()
        assert await cache.read(digest) == DATA
        near.blobs.clear()
        assert await read(await cache.open_read(digest, 7, 70)) == DATA[7:77]


@virtual_clock
async def test_a_breaker_whose_probe_was_cancelled_lets_another_one_through() -> None:
    inner = Scripted(fails=Unavailable("down"))
    digest = inner.hold(DATA)
    service = BreakerBlobService(inner, Breaker(failures=1, open_for=30.0))
    with pytest.raises(Unavailable):
        await service.has(digest)
    inner.fails, inner.after = None, 3600.0
    await asyncio.sleep(30.0)
    probe = asyncio.create_task(service.has(digest))
    await asyncio.sleep(10.0)
    assert inner.calls["has"] == 2
    probe.cancel()
    await asyncio.wait([probe])
    inner.after = 0.0
    with pytest.raises(Unavailable, match="left alone"):
        await service.read(digest)
    await asyncio.sleep(30.0)
    assert await service.read(digest) == DATA and await service.has(digest)
