"""A blob service that behaves as a test says: slow, dead, lying, breaking off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob import BlobWriter, Chunk, MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import StoreError, Unavailable
from tvixstore.streams import ByteStream


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def chunks_of(data: bytes, size: int) -> list[Chunk]:
    return [Chunk(Digest.of(part), len(part)) for part in cut(data, size)]


@dataclass(eq=False)
class Scripted(MemoryBlobService):
    """Holds `blobs`; each is handed out in pieces of `piece` bytes.

    A stream breaks with `breaks_with` at `breaks_at`, and waits for `go_on` at `waits_at`. What
    `lies` has for a digest is served instead, and `lists` is what chunk lists it claims. `fails` is
    raised by every call; writing raises `full` if set.
    """

    piece: int = 1000
    breaks_at: int | None = None
    breaks_with: Exception = field(default_factory=lambda: Unavailable("connection reset"))
    waits_at: int | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lies: dict[Digest, bytes] = field(default_factory=dict)
    lists: dict[Digest, list[Chunk]] = field(default_factory=dict)
    after: float = 0.0
    fails: Exception | None = None
    full: Exception | None = None
    calls: Counter[str] = field(default_factory=Counter)
    read_digests: list[Digest] = field(default_factory=list)
    boundaries: list[Sequence[int] | None] = field(default_factory=list)
    open_streams: int = 0
    # Set when a writer was closed.
    kept: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__()

    def hold(self, data: bytes, chunk: int | None = None) -> Digest:
        """Puts `data` there, and its chunks of that size with a list of them."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        if chunk is not None:
            self.lists[digest] = chunks_of(data, chunk)
            self.blobs |= {Digest.of(part): part for part in cut(data, chunk)}
        return digest

    async def _called(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(self.after)
        if self.fails is not None:
            raise self.fails

    async def has(self, digest: Digest) -> bool:
        await self._called("has")
        return await super().has(digest)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        await self._called("chunks")
        if digest in self.lists:
            return self.lists[digest]
        return await super().chunks(digest)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        await self._called("open_read")
        self.read_digests.append(digest)
        data = self.lies.get(digest, self.blobs.get(digest))
        if data is None:
            return None
        end = len(data) if length is None else offset + length
        return _ScriptedStream(self, data[:end], offset)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        await self._called("open_write")
        self.boundaries.append(boundaries)
        return _ScriptedWriter(self, await super().open_write(boundaries))


@dataclass(eq=False)
class _ScriptedWriter(BlobWriter):
    service: Scripted
    inner: BlobWriter

    async def write(self, data: bytes) -> None:
        if self.service.full is not None:
            raise self.service.full
        await self.inner.write(data)

    async def close(self) -> Digest:
        if self.service.full is not None:
            raise self.service.full
        digest = await self.inner.close()
        self.service.kept.set()
        return digest

    async def abort(self) -> None:
        await self.inner.abort()


class _ScriptedStream(ByteStream):
    def __init__(self, service: Scripted, data: bytes, position: int) -> None:
        self._service = service
        self._data = data
        self._position = position
        self._open = True
        service.open_streams += 1

    async def __anext__(self) -> bytes:
        service = self._service
        if service.waits_at is not None and self._position >= service.waits_at:
            await service.go_on.wait()
        if service.breaks_at is not None and self._position >= service.breaks_at:
            raise service.breaks_with
        part = self._data[self._position : self._position + service.piece]
        if not part:
            raise StopAsyncIteration
        self._position += len(part)
        return part

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._service.open_streams -= 1


async def read(stream: ByteStream | None) -> bytes:
    assert stream is not None
    return await stream.read_all()


async def read_until_it_breaks(stream: ByteStream | None) -> tuple[bytes, Exception]:
    """What came before the stream broke, and why it did; fails if it did not."""
    assert stream is not None
    came = b""
    async with stream:
        try:
            async for part in stream:
                came += part
        except (StoreError, OSError) as error:
            return came, error
    raise AssertionError("the stream did not break")
