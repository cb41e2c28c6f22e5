from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, read, read_until_it_breaks
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import BlobWriter, MemoryBlobService, ReadOnlyBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, ReadOnly, StorageFull, Unavailable

DATA = noise(300_000)
DIGEST = Digest.of(DATA)


def mirror(*members: MemoryBlobService, quorum: int, repair: bool = True) -> MirrorBlobService:
    return MirrorBlobService(members, "abcdef"[: len(members)], quorum, repair)


async def settle(service: MirrorBlobService) -> None:
    """Lets the repairs be done."""
    await asyncio.sleep(60.0)
    await service.aclose()


async def stream_in(service: MirrorBlobService, data: bytes = DATA, piece: int = 50_000) -> Digest:
    async with await service.open_write() as writer:
        for begin in range(0, len(data), piece):
            await writer.write(data[begin : begin + piece])
        return await writer.close()


@virtual_clock
async def test_what_is_put_is_in_all_members() -> None:
    members = [Scripted(), Scripted(), Scripted()]
    service = mirror(*members, quorum=3)
    assert await stream_in(service) == DIGEST
    small = await service.put(b"small")
    many = await service.put_many([b"one", b"two"])
    for member in members:
        for digest in (DIGEST, small, *many):
            assert await member.has(digest)
    await settle(service)


@virtual_clock
async def test_a_member_that_fails_is_dropped_and_repaired_once_it_takes_writes_again() -> None:
    healthy, full, other = Scripted(), Scripted(full=StorageFull("full")), Scripted()
    service = mirror(healthy, full, other, quorum=2)
    assert await stream_in(service) == DIGEST
    assert not await full.has(DIGEST)
    full.full = None
    await settle(service)
    assert full.blobs[DIGEST] == DATA


@virtual_clock
async def test_a_member_that_fails_in_the_middle_leaves_the_others_alone() -> None:
    healthy, breaks = Scripted(), Scripted()
    service = mirror(healthy, breaks, quorum=1)
    async with await service.open_write() as writer:
        await writer.write(DATA[:100_000])
        breaks.full = StorageFull("full")
        await writer.write(DATA[100_000:])
        assert await writer.close() == DIGEST
    assert await healthy.has(DIGEST)
    assert not await breaks.has(DIGEST)
    await service.aclose()


@virtual_clock
async def test_without_its_quorum_a_write_fails_and_nothing_is_visible() -> None:
    healthy, full = Scripted(), Scripted(full=StorageFull("full"))
    service = mirror(healthy, full, quorum=2)
    with pytest.raises(StorageFull):
        await stream_in(service)
    assert not await service.has(DIGEST)
    down = mirror(healthy, Scripted(fails=Unavailable("down")), quorum=2)
    with pytest.raises(Unavailable, match="b: down"):
        await stream_in(down)
    closed = ReadOnlyBlobService(MemoryBlobService())
    with pytest.raises(ReadOnly):
        await MirrorBlobService([closed, closed], "ab", 1).put(b"x")
    await service.aclose()
    await down.aclose()


@virtual_clock
async def test_reads_go_on_while_any_member_can_be_read() -> None:
    healthy = Scripted()
    healthy.hold(DATA)
    service = mirror(Scripted(fails=Unavailable("down")), healthy, quorum=2)
    assert await service.read(DIGEST) == DATA
    with pytest.raises(Unavailable, match="a: down"):
        await service.has(Digest.of(b"nobody has it"))
    await service.aclose()


@pytest.mark.parametrize("call", ["has", "read", "chunks"])
def test_who_is_found_to_lack_a_blob_gets_it(call: str) -> None:
    @virtual_clock
    async def run() -> None:
        empty, full = Scripted(), Scripted()
        full.hold(DATA, 50_000)
        service = mirror(empty, full, quorum=2)
        await getattr(service, call)(DIGEST)
        await settle(service)
        assert empty.blobs[DIGEST] == DATA
        # Cut as it was, so that chunks that somebody listed are there too.
        assert [50_000] * 6 in empty.boundaries

    run()


@virtual_clock
async def test_a_member_whose_copy_is_wrong_is_given_the_right_one() -> None:
    liar, honest = Scripted(lies={DIGEST: b"x" * len(DATA)}), Scripted()
    liar.hold(DATA)
    honest.hold(DATA)
    service = mirror(liar, honest, quorum=2)
    # It is known at its end only, and whoever asks again comes to the other.
    _, error = await read_until_it_breaks(await service.open_read(DIGEST))
    assert isinstance(error, CorruptData)
    assert await read(await service.open_read(DIGEST)) == DATA
    await settle(service)
    assert liar.kept.is_set() and not honest.kept.is_set()


@virtual_clock
async def test_a_repair_brings_no_wrong_bytes() -> None:
    empty, liar = Scripted(), Scripted(lies={DIGEST: b"x" * len(DATA)})
    liar.hold(DATA)
    service = mirror(empty, liar, quorum=2)
    assert await service.has(DIGEST)
    await settle(service)
    assert set(empty.blobs) == set(MemoryBlobService().blobs)


@virtual_clock
async def test_without_repair_nothing_is_brought() -> None:
    empty, full = Scripted(), Scripted()
    full.hold(DATA)
    service = mirror(empty, full, quorum=2, repair=False)
    assert await service.read(DIGEST) == DATA
    await settle(service)
    assert not await empty.has(DIGEST)


@virtual_clock
async def test_a_writer_that_is_left_leaves_nothing_anywhere() -> None:
    members = [Scripted(), Scripted(full=StorageFull("full")), Scripted()]
    service = mirror(*members, quorum=2)
    async with await service.open_write() as writer:
        await writer.write(DATA)
    await settle(service)
    assert not any([await member.has(DIGEST) for member in members])


@virtual_clock
async def test_a_member_that_takes_a_blob_for_another_is_found_out() -> None:
    class Confused(MemoryBlobService):
        async def open_write(self, boundaries: object = None) -> Any:
            writer = await super().open_write(None)
            await writer.write(b"something before it")
            return writer

    service = mirror(MemoryBlobService(), Confused(), quorum=2)
    with pytest.raises((CorruptData, Unavailable), match="for"):
        await stream_in(service)
    await service.aclose()


class _Opens(Scripted):
    """Counts the writers that are open."""

    def __init__(self, **script: Any) -> None:
        super().__init__(**script)
        self.open_writers = 0

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        writer = await super().open_write(boundaries)
        self.open_writers += 1
        return _Opened(writer, self)


@dataclass(eq=False)
class _Opened(BlobWriter):
    inner: BlobWriter
    service: _Opens

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def close(self) -> Digest:
        return await self.inner.close()

    async def abort(self) -> None:
        self.service.open_writers -= 1
        await self.inner.abort()


@virtual_clock
async def test_without_its_quorum_no_writer_stays_open() -> None:
    quick, down = _Opens(), _Opens(after=1.0, fails=Unavailable("down"))
    with pytest.raises(Unavailable, match="down"):
        await mirror(quick, down, quorum=2).open_write()
    assert quick.open_writers == 0


@virtual_clock
async def test_who_leaves_while_writers_are_opened_leaves_none_open() -> None:
    quick, slow = _Opens(), _Opens(after=60.0)
    opening = asyncio.create_task(mirror(quick, slow, quorum=2).open_write())
    await asyncio.sleep(1.0)
    assert quick.open_writers == 1
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled() and quick.open_writers == 0
