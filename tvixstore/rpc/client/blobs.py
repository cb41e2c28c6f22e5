"""Blobs of another daemon, read by chunks, several at a time, and verified.

Its chunk lists are claims: each chunk is held against the list, and the whole against its digest.
A part comes from a list only once the whole was verified with it; until then, all of it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from tvixstore.blob import BlobService, BlobWriter, Chunk, VerifyBlobService
from tvixstore.blob.checked import CheckedStream
from tvixstore.blob.outline import Outline, outline_of, size_of, update
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.castore import EMPTY_DIGEST, Digest, FileNode
from tvixstore.errors import CorruptData, InvalidData, Unavailable
from tvixstore.parallel import together
from tvixstore.policy.lru import Lru
from tvixstore.rpc.client.call import Unimplemented
from tvixstore.rpc.client.paced import Sent, Served
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.client.small_blobs import SmallBlobs
from tvixstore.rpc.messages import StatBlob
from tvixstore.rpc.methods import PUT_BLOB, READ_BLOB, STAT_BLOB
from tvixstore.streams import BytesStream, ByteStream

# Blobs up to this size are read in one go: asking for their chunks would take longer.
DIRECT: Final = 1 << 20
# Chunks under way at a time, and their bytes: what keeps 1 Gbit/s at 20 ms busy.
CHUNKS_AHEAD: Final = 16
BYTES_AHEAD: Final = 8 << 20
# Messages read ahead of whoever reads a blob in one stream.
_MESSAGES_AHEAD: Final = 8
# Messages of a put are of these sizes, but for the last.
_LEAST: Final = 64 << 10
_MOST: Final = 256 << 10
# Chunks whose lists are remembered, some 200 bytes each.
_LISTED: Final = 100_000


class GrpcBlobService(BlobService):
    """The blobs of `peer`. Streams that are open when the peer is closed break."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._small = SmallBlobs(peer, DIRECT)
        self._claims = _Claims(peer)
        # Knows which outlines were verified, and serves parts by them.
        self._verified = VerifyBlobService(self._claims)

    def __repr__(self) -> str:
        return repr(self._peer)

    async def has(self, digest: Digest) -> bool:
        return await self._claims.has(digest)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        if offset or length is not None:
            return await self._verified.open_read(digest, offset, length, size)
        claim = await self._claims.claim(digest, size)
        source = None if claim is None else await self._claims.open(digest, claim)
        if source is None:
            return None
        return CheckedStream(
            digest, source, claim or None, lambda outline: self._verified.know(digest, outline)
        )

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        if size is None or size > DIRECT:
            return await super().read(digest, size)
        # Known to be small: one short call, and no stream.
        data = await self._claims.gather(digest, DIRECT)
        if data is not None and Digest.of(data) != digest:
            raise CorruptData(f"{self._peer.name}: what came for blob {digest} is something else")
        return data

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        contents = {EMPTY_DIGEST: b""}
        asked = [file for file in files if 0 < file.size <= DIRECT]
        # Whoever reads the others connects anew, or hears why that cannot be.
        with suppress(Unimplemented, Unavailable):
            await self._small.read(asked, contents)
        found = [contents.get(file.digest) for file in files]
        return [
            data if data is not None and len(data) == file.size else None
            for file, data in zip(files, found, strict=True)
        ]

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        asked = [digest for digest in digests if digest != EMPTY_DIGEST]
        try:
            return await self._small.lacking(asked)
        except Unimplemented:
            there = await together(self.has, asked)
        return {digest for digest, has in zip(asked, there, strict=True) if not has}

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self._claims.open_write(boundaries)

    async def put(self, data: bytes) -> Digest:
        if len(data) > DIRECT:
            return await super().put(data)
        # Short enough for one short call.
        parts = [data[begin : begin + _MOST] for begin in range(0, len(data), _MOST)]
        digest = await self._peer.tell(PUT_BLOB, parts)
        if digest != Digest.of(data):
            raise _stored_as(self._peer, Digest.of(data), digest)
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        small = [data for data in blobs if len(data) <= DIRECT]
        try:
            stored = iter(await self._small.put(small))
        except Unimplemented:
            return await together(self.put, blobs)
        return [next(stored) if len(data) <= DIRECT else await self.put(data) for data in blobs]

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        if digest == EMPTY_DIGEST:
            return []
        return await self._claims.chunks(digest)


@dataclass(eq=False)
class _Claims(BlobService):
    """What the peer says, unverified but for the chunks of a list."""

    peer: Peer
    _listed: Lru[Digest, Outline] = field(default_factory=lambda: Lru(_LISTED))

    async def has(self, digest: Digest) -> bool:
        if digest == EMPTY_DIGEST:
            return True
        return await self.peer.ask(STAT_BLOB, StatBlob(digest)) is not None

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        listed = await self.peer.ask(STAT_BLOB, StatBlob(digest, send_chunks=True))
        if listed is None:
            return None
        # One chunk is nothing more granular.
        return list(listed) if len(listed) > 1 else []

    async def claim(self, digest: Digest, size: int | None = None) -> Outline | None:
        """The chunks that the blob is said to have, none if it comes in one; `None` if absent."""
        if size is not None and size <= DIRECT:
            return ()
        if (known := self._listed.get(digest)) is not None:
            return known
        chunks = await self.chunks(digest)
        if chunks is None:
            return None
        outline = outline_of(chunks)
        if chunks and outline is None:
            raise CorruptData(f"{self.peer.name}: blob {digest} has chunks of impossible sizes")
        self._listed.put(digest, outline or (), len(chunks) or 1)
        return outline or ()

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        claim = await self.claim(digest, size)
        return None if claim is None else await self.open(digest, claim, offset, length)

    async def open(
        self, digest: Digest, claim: Outline, offset: int = 0, length: int | None = None
    ) -> ByteStream | None:
        """A part by the chunks of `claim`, or without any from a stream of the whole."""
        if not claim:
            replies = await self.peer.serve(READ_BLOB, digest, _MESSAGES_AHEAD)
            return None if replies is None else _Part(replies, offset, length)
        left = max(0, size_of(claim) - offset)
        return ReadAhead(
            [(chunk.digest.raw, chunk.size) for chunk in claim],
            lambda entry: self._chunk(digest, *entry),
            offset,
            left if length is None else min(left, length),
            chunks_ahead=CHUNKS_AHEAD,
            bytes_ahead=BYTES_AHEAD,
        )

    async def gather(self, digest: Digest, most: int) -> bytes | None:
        """A small blob; `CorruptData` if it is longer than `most` bytes."""
        if digest == EMPTY_DIGEST:
            return b""
        parts = await self.peer.gather(READ_BLOB, digest, most)
        return None if parts is None else b"".join(parts)

    async def _chunk(self, blob: Digest, chunk: bytes, size: int) -> bytes:
        """A chunk of the length that was claimed; its content is verified with the stream."""
        data = await self.gather(Digest(chunk), size)
        if data is None:
            self._listed.discard(blob)
            raise Unavailable(f"{self.peer.name} lists chunk {chunk.hex()}, and does not have it")
        if len(data) != size:
            raise CorruptData(
                f"{self.peer.name}: chunk {chunk.hex()} is {len(data)} bytes long, not {size}"
            )
        return data

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        await self.peer.settle(STAT_BLOB, StatBlob(EMPTY_DIGEST))
        return _GrpcBlobWriter(self.peer, await self.peer.send(PUT_BLOB))


class _Part(ByteStream):
    """A stream of messages without its first `skip` bytes, and `length` of them at most."""

    def __init__(self, replies: Served[bytes], skip: int, length: int | None) -> None:
        self._replies = replies
        self._skip = skip
        self._left = length

    async def __anext__(self) -> bytes:
        while self._left != 0:
            data = await self._replies.__anext__()
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            if data:
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._left = 0
        await self._replies.aclose()


class _GrpcBlobWriter(BlobWriter):
    """Sends what is written as it comes, in messages that are neither small nor large."""

    def __init__(self, peer: Peer, sent: Sent[bytes, Digest]) -> None:
        self._peer = peer
        self._sent = sent
        self._hasher = blake3()
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._digest: Digest | None = None

    async def write(self, data: bytes) -> None:
        if self._digest is not None:
            raise InvalidData("this blob was closed, and takes nothing more")
        await update(self._hasher, data)
        self._parts.append(bytes(data))
        self._held += len(data)
        if self._held >= _LEAST:
            await self._flush()

    async def close(self) -> Digest:
        if self._digest is None:
            await self._flush()
            digest = await self._sent.finish()
            if digest.raw != self._hasher.digest():
                raise _stored_as(self._peer, Digest(self._hasher.digest()), digest)
            self._digest = digest
        return self._digest

    async def abort(self) -> None:
        self._parts.clear()
        await self._sent.aclose()

    async def _flush(self) -> None:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        for begin in range(0, len(data), _MOST):
            await self._sent.send(data[begin : begin + _MOST])


def _stored_as(peer: Peer, digest: Digest, other: Digest) -> CorruptData:
    return CorruptData(f"{peer.name} says that it stored blob {digest} as {other}")
