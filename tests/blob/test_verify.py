from __future__ import annotations

import asyncio

import pytest

from tests.blob.scripted import Scripted, read, read_until_it_breaks
from tests.blob.test_racing import CHUNK, DATA, DIGEST, holder
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import VerifyBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData


def lies() -> list[bytes]:
    return [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b"x" + DATA[1:], b"", b"x"]


@virtual_clock
async def test_what_is_wrong_never_ends_well() -> None:
    for lie in lies():
        inner = holder(piece=CHUNK)
        inner.lies[DIGEST] = lie
        service = VerifyBlobService(inner)
        came, error = await read_until_it_breaks(await service.open_read(DIGEST))
        assert isinstance(error, CorruptData)
        assert len(came) < len(DATA)
        for offset, length in [(0, 10), (10, 10), (len(DATA) - 1, None)]:
            with pytest.raises(CorruptData):
                await read(await service.open_read(DIGEST, offset, length))
        with pytest.raises(CorruptData):
            await service.read(DIGEST)
        assert inner.open_streams == 0


@virtual_clock
async def test_the_outline_of_a_blob_is_drawn_once() -> None:
    inner = holder(piece=CHUNK)
    service = VerifyBlobService(inner)
    for offset in (0, 1, 300_000, 699_999):
        assert await read(await service.open_read(DIGEST, offset, 10)) == DATA[offset:][:10]
    # Once for all of it, and once for each part.
    assert inner.calls["open_read"] == 5


@virtual_clock
async def test_a_part_that_changed_since_is_not_passed_on() -> None:
    inner = holder(piece=CHUNK)
    service = VerifyBlobService(inner)
    assert await service.read(DIGEST) == DATA
    inner.lies[DIGEST] = DATA[:400_000] + b"?" + DATA[400_001:]
    assert await read(await service.open_read(DIGEST, 5, 5)) == DATA[5:10]
    came, error = await read_until_it_breaks(await service.open_read(DIGEST, 100))
    assert isinstance(error, CorruptData)
    assert came == DATA[100:][: len(came)] and len(came) < 400_000
    inner.lies[DIGEST] = DATA[:300_000]
    with pytest.raises(CorruptData):
        await read(await service.open_read(DIGEST, 299_990, 20))


@virtual_clock
async def test_a_reader_who_resumes_does_not_wait_for_the_whole() -> None:
    inner = holder(waits_at=600_000, piece=CHUNK)
    service = VerifyBlobService(inner)
    stream = await service.resume(DIGEST, 1000)
    assert stream is not None
    first = await anext(stream)
    assert DATA[1000:].startswith(first)
    inner.go_on.set()
    assert first + await stream.read_all() == DATA[1000:]
    # From now on by the outline.
    assert await read(await service.resume(DIGEST, 600_001)) == DATA[600_001:]
    assert await service.resume(Digest.of(b"absent"), 5) is None


@virtual_clock
async def test_parts_at_the_same_time_have_the_whole_hashed_once() -> None:
    inner = holder(after=1.0)
    service = VerifyBlobService(inner)

    async def part(offset: int) -> bytes:
        return await read(await service.open_read(DIGEST, offset, 5))

    parts = await asyncio.gather(*[part(offset) for offset in range(4)])
    assert parts == [DATA[offset:][:5] for offset in range(4)]
    assert inner.calls["open_read"] == 5


@virtual_clock
async def test_absent_stays_absent() -> None:
    service = VerifyBlobService(Scripted())
    assert await service.open_read(DIGEST) is None
    assert await service.open_read(DIGEST, 1) is None
    assert await service.read(DIGEST) is None
