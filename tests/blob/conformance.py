"""The contract of `BlobService` as checks of a service: `CHECKS` has them all.

`test_conformance.py` runs them over every implementation, and over broken ones that must fail.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from tvixstore.blob import BlobService
from tvixstore.castore import EMPTY_DIGEST, Digest, FileNode

KIB = 1 << 10
SIZES = (
    *(0, 1, 1023, 1024, 1025, 10_000),
    *(128 * KIB - 1, 128 * KIB, 128 * KIB + 1),
    *(256 * KIB - 1, 256 * KIB, 256 * KIB + 1),
    5_000_000,
)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression shortens."""
    return random.Random(f"{size} {seed}").randbytes(size)


def prose(size: int, seed: int = 0) -> bytes:
    """Bytes that any compression shortens."""
    words = random.Random(seed).choices([b"store ", b"path ", b"of ", b"the ", b"\n"], k=size // 2)
    return b"".join(words).ljust(size, b".")[:size]


async def part(
    service: BlobService, digest: Digest, offset: int = 0, length: int | None = None
) -> bytes | None:
    """Part of a blob, whose stream keeps the contract of streams."""
    stream = await service.open_read(digest, offset, length)
    if stream is None:
        return None
    pieces = []
    async with stream:
        async for piece in stream:
            assert isinstance(piece, bytes) and piece, "a piece is bytes, and never empty"
            pieces.append(piece)
    return b"".join(pieces)


async def check_what_is_put_is_read(service: BlobService) -> None:
    for make in (noise, prose):
        for size in SIZES:
            data = make(size)
            digest = await service.put(data)
            assert digest == Digest.of(data)
            assert await service.has(digest)
            assert await service.read(digest) == data
            assert await service.read(digest, size) == data
            assert await part(service, digest) == data


async def check_an_absent_blob_is_none(service: BlobService) -> None:
    digest = Digest.of(b"never stored")
    assert not await service.has(digest)
    assert await service.open_read(digest) is None
    assert await service.open_read(digest, 1, 1) is None
    assert await service.read(digest) is None
    assert await service.read(digest, 12) is None
    assert await service.chunks(digest) is None


async def check_the_empty_blob_is_always_there(service: BlobService) -> None:
    for _ in range(2):
        assert await service.has(EMPTY_DIGEST)
        assert await service.read(EMPTY_DIGEST) == b""
        assert await part(service, EMPTY_DIGEST, 5) == b""
        assert await service.chunks(EMPTY_DIGEST) == []
        assert await service.put(b"") == EMPTY_DIGEST


async def check_any_part_is_read(service: BlobService) -> None:
    for size in (1, 1025, 300_000, 3_000_000):
        data = noise(size, seed=1)
        digest = await service.put(data)
        points = {0, 1, size // 3, size // 2, size - 1, size, size + 1, size + 1_000_000}
        for offset in points:
            assert await part(service, digest, offset) == data[offset:]
            for length in (0, 1, size // 3, size, size + 1):
                assert await part(service, digest, offset, length) == data[offset:][:length]


async def check_chunks_add_up_and_are_readable(service: BlobService) -> None:
    for size in (1000, 300_000, 5_000_000):
        data = noise(size, seed=2)
        digest = await service.put(data)
        chunks = await service.chunks(digest)
        assert chunks is not None
        if not chunks:
            continue
        assert len(chunks) > 1, "a blob that is one chunk has nothing more granular"
        offset = 0
        for chunk in chunks:
            assert await service.has(chunk.digest)
            assert await service.chunks(chunk.digest) == []
            expected = data[offset : offset + chunk.size]
            assert await service.read(chunk.digest) == expected
            offset += chunk.size
        assert offset == size


async def check_a_blob_may_come_in_any_pieces(service: BlobService) -> None:
    data = noise(3_000_000, seed=3)
    for piece in (777, 65_536, 2 << 20, 3_000_000):
        async with await service.open_write() as writer:
            for begin in range(0, len(data), piece):
                await writer.write(data[begin : begin + piece])
                await writer.write(b"")
            assert await writer.close() == Digest.of(data)
    assert await part(service, Digest.of(data)) == data


async def check_nothing_is_visible_before_close(service: BlobService) -> None:
    for size in (1, 100_000, 6_000_000):
        data = prose(size // 2, seed=4) + noise(size - size // 2, seed=4)
        async with await service.open_write() as writer:
            await writer.write(data)
            assert not await service.has(Digest.of(data))
            assert await service.read(Digest.of(data)) is None
        # Left without `close`.
        assert not await service.has(Digest.of(data))
        await writer.abort()


async def check_a_closed_writer_stays_closed(service: BlobService) -> None:
    data = noise(1000, seed=5)
    async with await service.open_write() as writer:
        await writer.write(data)
        digest = await writer.close()
        assert await writer.close() == digest
        await writer.abort()
    assert await service.read(digest) == data


async def check_boundaries_never_change_the_bytes(service: BlobService) -> None:
    data = noise(500_000, seed=6)
    hints: Sequence[Sequence[int]] = (
        *([], [500_000], [100_000] * 5, [1, 2, 3], [499_999], [400_000, 200_000]),
        *([0, 500_000], [600_000], [2**40]),
    )
    for seed, hint in enumerate(hints):
        own = data + bytes([seed])
        async with await service.open_write(hint) as writer:
            for begin in range(0, len(own), 70_000):
                await writer.write(own[begin : begin + 70_000])
            assert await writer.close() == Digest.of(own)
        assert await part(service, Digest.of(own)) == own
        assert await part(service, Digest.of(own), 99_999, 2) == own[99_999:100_001]


async def check_many_are_put_in_order(service: BlobService) -> None:
    blobs = [noise(size % 5000, seed=7) for size in range(0, 40_000, 97)]
    blobs += [noise(700_000, seed=7), b"", b"same", b"same", prose(100_000, seed=7)]
    assert await service.put_many(blobs) == [Digest.of(data) for data in blobs]
    for data in blobs:
        assert await service.read(Digest.of(data)) == data
    assert await service.put_many([]) == []


async def check_the_same_blob_may_be_written_many_times_at_once(service: BlobService) -> None:
    for data in (noise(2000, seed=8), noise(2_000_000, seed=8)):
        digests = await asyncio.gather(*[service.put(data) for _ in range(8)])
        assert set(digests) == {Digest.of(data)}
        assert await part(service, digests[0]) == data


async def check_readers_do_not_disturb_each_other(service: BlobService) -> None:
    data = noise(2_500_000, seed=9)
    digest = await service.put(data)
    offsets = range(0, 2_500_000, 200_000)
    parts = await asyncio.gather(*[part(service, digest, offset) for offset in offsets])
    assert parts == [data[offset:] for offset in offsets]


async def check_what_is_at_hand_is_what_is_read(service: BlobService) -> None:
    there = [noise(300), prose(3000), b"", noise(100_000)]
    digests = await service.put_many(there)
    files = [FileNode(digest, len(data)) for data, digest in zip(there, digests, strict=True)]
    of_another_size = FileNode(files[1].digest, 2999)
    absent = FileNode(Digest.of(b"never stored"), 12)
    assert await service.at_hand([]) == []
    contents = await service.at_hand([*files, of_another_size, absent, *files])
    assert contents[4:6] == [None, None]
    for data, found in zip([*there, *there], contents[:4] + contents[6:], strict=True):
        assert found in (data, None)


async def check_what_is_lacking_is_what_is_not_there(service: BlobService) -> None:
    there = [await service.put(noise(size, seed=12)) for size in (0, 10, 600_000)]
    absent = [Digest.of(noise(size, seed=13)) for size in (10, 600_000)]
    assert await service.lacking([]) == set()
    lacking = await service.lacking([*there, *absent, *there, *absent])
    # A cache lacks what only far has.
    assert lacking in (set(absent), {*absent, *there[1:]})


async def check_what_is_lacking_is_put_and_counted(service: BlobService) -> None:
    there, new = [noise(3000, seed=14), b""], [prose(4000, seed=15), noise(700_000, seed=15)]
    await service.put_many(there)
    # The long one is cut, and so goes another way.
    for some in ([*there, new[0]], [*there, *new], new):
        blobs = {Digest.of(data): data for data in some}
        lacking = await service.lacking(list(blobs))
        sent = await service.put_lacking(blobs)
        assert sent == sum(len(blobs[digest]) for digest in lacking)
        for digest, data in blobs.items():
            assert await service.read(digest) == data
    assert await service.put_lacking({}) == 0


async def check_a_stream_may_be_left_at_any_time(service: BlobService) -> None:
    data = noise(3_000_000, seed=10)
    digest = await service.put(data)
    for pieces in range(3):
        stream = await service.open_read(digest)
        assert stream is not None
        for _ in range(pieces):
            with suppress(StopAsyncIteration):
                await anext(stream)
        await stream.aclose()
        await stream.aclose()


async def check_a_cancelled_writer_leaves_nothing(service: BlobService) -> None:
    data = noise(6_000_000, seed=11)

    async def write(written: asyncio.Event) -> None:
        async with await service.open_write() as writer:
            await writer.write(data)
            written.set()
            await asyncio.Event().wait()

    for turns in (0, 1, 3, 10, None):
        written = asyncio.Event()
        task = asyncio.create_task(write(written))
        if turns is None:
            await written.wait()
        else:
            for _ in range(turns):
                await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not await service.has(Digest.of(data))
    assert await service.put(data) == Digest.of(data)


Check = Callable[[BlobService], Awaitable[None]]

CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_what_is_put_is_read,
        check_an_absent_blob_is_none,
        check_the_empty_blob_is_always_there,
        check_any_part_is_read,
        check_chunks_add_up_and_are_readable,
        check_a_blob_may_come_in_any_pieces,
        check_nothing_is_visible_before_close,
        check_a_closed_writer_stays_closed,
        check_boundaries_never_change_the_bytes,
        check_many_are_put_in_order,
        check_the_same_blob_may_be_written_many_times_at_once,
        check_what_is_at_hand_is_what_is_read,
        check_what_is_lacking_is_what_is_not_there,
        check_what_is_lacking_is_put_and_counted,
        check_readers_do_not_disturb_each_other,
        check_a_stream_may_be_left_at_any_time,
        check_a_cancelled_writer_leaves_nothing,
    )
}
