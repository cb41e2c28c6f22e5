"""Blobs in an object store, in the layout of tvix and snix, so that a bucket can be shared with
them.

`blobs/b3/…` has a StatBlobResponse for each blob: its chunks, none where it is a single one.
`chunks/b3/…` has the chunks, zstd-compressed. Whoever else writes there is not believed: chunks are
hashed when they are read, and a chunk list counts for parts once the whole hashed to its blob.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blake3 import blake3

from tvixstore.blob.bucket import Bucket, together
from tvixstore.blob.checked import CheckedStream
from tvixstore.blob.chunking import Chunking
from tvixstore.blob.object_codec import (
    blob_key,
    chunk_key,
    decode_chunk_object,
    decode_stat,
)
from tvixstore.blob.object_writer import ObjectWriter
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import CorruptData, Incomplete
from tvixstore.log import Logger
from tvixstore.policy.lru import Lru
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.streams import BytesStream, ByteStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvixstore.blob.chunk_list import Entry
    from tvixstore.pools import Pools

# Chunk lists that are known to be right, some 100 bytes each.
_VERIFIED = 100_000
# Blobs put at a time.
_PUTS = 16

_log = Logger(__name__)


@dataclass(eq=False)
class ObjectStoreBlobService(BlobService):
    """Blobs in `bucket`; what is aborted may leave chunks there, and never a blob."""

    bucket: Bucket
    chunking: Chunking = field(repr=False)
    pools: Pools = field(repr=False)
    # Of blobs whose chunk lists were verified with the whole: a digest of that list.
    _verified: Lru[Digest, bytes] = field(
        default_factory=lambda: Lru(_VERIFIED), init=False, repr=False
    )
    _verifying: SingleFlight[Digest, None] = field(
        default_factory=SingleFlight, init=False, repr=False
    )
    # Chunks found broken: they are there, and have to be written all the same.
    _broken: Lru[bytes, bool] = field(
        default_factory=lambda: Lru(_VERIFIED), init=False, repr=False
    )

    @classmethod
    def at(cls, url: str, pools: Pools, avg_chunk_size: int = 256 << 10) -> ObjectStoreBlobService:
        """The service over the bucket at a `file://` or `memory://` URL. Raises `ConfigError`."""
        return cls(Bucket.at(url, pools), Chunking(avg_chunk_size), pools)

    async def has(self, digest: Digest) -> bool:
        return (
            digest == EMPTY_DIGEST
            or await self.bucket.has(blob_key(digest.raw))
            or await self.bucket.has(chunk_key(digest.raw))
        )

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        found = await self._list(digest)
        if found is not None:
            return [Chunk(Digest(chunk), size) for chunk, size in found[0]]
        return [] if await self.has(digest) else None

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        if size is not None and size <= self.chunking.minimum:
            # Shorter than any chunk but a last one: no use in asking for its list first.
            data = await self._load(digest.raw, None)
            if data is not None:
                return _slice(data, offset, length)
        found = await self._list(digest)
        if found is not None:
            return await self._open_list(digest, *found, offset, length)
        data = await self._load(digest.raw, None)
        if data is not None:
            return _slice(data, offset, length)
        if await self.bucket.has(blob_key(digest.raw)):
            raise Incomplete(f"{digest} lacks its only chunk", digest.raw)
        return None

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return ObjectWriter(self, self.chunking.cutter(boundaries))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests: list[Digest] = []
        for begin in range(0, len(blobs), _PUTS):
            digests += await together([self.put(data) for data in blobs[begin : begin + _PUTS]])
        return digests

    async def lacks_chunk(self, digest: bytes) -> bool:
        """Whether the chunk has to be written."""
        return self._broken.get(digest) is not None or not await self.bucket.has(chunk_key(digest))

    def wrote_chunk(self, digest: bytes) -> None:
        """Notes that the chunk was just written."""
        self._broken.discard(digest)

    def wrote_list(self, digest: Digest, stat: bytes) -> None:
        """Notes that the blob's chunk list is `stat`, and right."""
        self._verified.put(digest, blake3(stat).digest())

    async def _list(self, digest: Digest) -> tuple[list[Entry], bytes] | None:
        """The chunks of a blob that has several, and a digest of that list."""
        stat = await self.bucket.get(blob_key(digest.raw))
        if not stat:
            return None
        entries = decode_stat(digest, stat)
        return (entries, blake3(stat).digest()) if entries else None

    async def _open_list(
        self, digest: Digest, entries: list[Entry], mark: bytes, offset: int, length: int | None
    ) -> ByteStream:
        total = sum(size for _, size in entries)
        whole = not offset and (length is None or length >= total)
        if self._verified.get(digest) != mark:
            if whole:
                return self._checked(digest, entries, mark)
            await self._verifying.run(digest, lambda: self._verify(digest, entries, mark))
        wanted = max(0, total - offset)
        if length is not None:
            wanted = min(wanted, length)
        return self._stream(digest, entries, offset, wanted)

    def _checked(self, digest: Digest, entries: list[Entry], mark: bytes) -> ByteStream:
        source = self._stream(digest, entries, 0, sum(size for _, size in entries))
        claimed = tuple(Chunk(Digest(chunk), size) for chunk, size in entries)
        return CheckedStream(
            digest, source, claimed, on_right=lambda _: self._verified.put(digest, mark)
        )

    async def _verify(self, digest: Digest, entries: list[Entry], mark: bytes) -> None:
        """Hashes the whole blob, once, so that parts of it can be read by its list."""
        async with self._checked(digest, entries, mark) as stream:
            async for _ in stream:
                pass

    def _stream(self, digest: Digest, entries: list[Entry], offset: int, wanted: int) -> ByteStream:
        async def load(entry: Entry) -> bytes:
            chunk, size = entry
            data = await self._load(chunk, size)
            if data is None:
                raise Incomplete(f"{digest} lacks its chunk b3:{chunk.hex()}", chunk)
            return data

        return ReadAhead(entries, load, offset, wanted)

    async def _load(self, digest: bytes, size: int | None) -> bytes | None:
        """The chunk, verified, or `None` if it is absent."""
        value = await self.bucket.get(chunk_key(digest))
        if value is None:
            return None
        try:
            return await self.pools.cpu.run(decode_chunk_object, digest, value, size)
        except CorruptData as error:
            if self._broken.get(digest) is None:
                _log.error("chunk.broken", chunk=digest.hex(), reason=str(error))
                self._broken.put(digest, True)
            raise


def _slice(data: bytes, offset: int, length: int | None) -> ByteStream:
    end = len(data) if length is None else offset + length
    return BytesStream(data[offset:end])
