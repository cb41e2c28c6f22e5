"""Blobs on this machine: chunks, each kept once, and lists of the chunks of longer blobs.

A blob that is one chunk is kept as just that chunk, so most blobs are one lookup in the index.
Chunks are written before the list that names them. A list is written by whoever hashed the whole
blob, and carries a check of its own; so parts can be read by it, and a whole blob is verified when
each of its chunks is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tvixstore.blob.audit import BlobAudit
from tvixstore.blob.chunk_codec import StoredForm, encode_chunk
from tvixstore.blob.chunk_files import ChunkFiles
from tvixstore.blob.chunk_list import Entry, decode_chunk_list
from tvixstore.blob.chunk_store import IN_LOOP_BYTES_OF_A_STREAM, ChunkStore
from tvixstore.blob.chunking import Chunking
from tvixstore.blob.local_writer import IN_LOOP_BYTES, LocalBlobWriter
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.staging import Staging, to_the_end
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import CorruptData, Incomplete, StoreError
from tvixstore.log import Logger
from tvixstore.streams import BytesStream, ByteStream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tvixstore.kv import DiskGuard, Durability, KeyValue
    from tvixstore.metrics import Metrics
    from tvixstore.pools import Pools

Compression = Literal["auto", "none"]

# Of short blobs that are stored together, what goes into one commit.
BATCH_BYTES = 8 << 20

_log = Logger(__name__)


class LocalBlobService(BlobService):
    """Blobs in two tables, and in files below `directory / "chunks"`.

    One instance a directory at a time: the state directory's lock sees to that. Its constructor
    blocks for some milliseconds and raises `ConfigError`. `chunk_size` is the average. Writing
    raises `StorageFull` where the disk or `guard` has no room; nothing of the blob stays then.
    """

    def __init__(
        self,
        table_blobs: KeyValue,
        table_chunks: KeyValue,
        directory: Path,
        pools: Pools,
        *,
        chunk_size: int = 256 << 10,
        compression: Compression = "auto",
        durability: Durability = "power",
        guard: DiskGuard | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._blobs = table_blobs
        self._directory = directory
        self._pools = pools
        self._chunking = Chunking(chunk_size)
        self._compress = compression == "auto"
        self._durable = durability == "power"
        files = ChunkFiles(directory / "chunks", durable=self._durable)
        self._store = ChunkStore(table_chunks, files, pools, guard, metrics)

    def __repr__(self) -> str:
        return f"local {self._directory}"

    @property
    def dropped_chunks(self) -> int:
        """How many chunks were found corrupt or missing, and dropped, since start."""
        return self._store.dropped

    def audit(self) -> BlobAudit:
        """For whoever goes through all of it."""
        return BlobAudit(self._blobs, self._store, self._forget)

    async def has(self, digest: Digest) -> bool:
        return (
            digest == EMPTY_DIGEST
            or await self._store.index.get(digest.raw) is not None
            or await self._blobs.get(digest.raw) is not None
        )

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        if digest == EMPTY_DIGEST:
            return b""
        data = await self._store.load(digest.raw)
        if data is None and (entries := await self._entries(digest)) is not None:
            return await self._stream(digest, entries, 0, None).read_all()
        return data

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        data = await self._store.load(digest.raw)
        if data is not None:
            end = len(data) if length is None else offset + length
            return BytesStream(data if not offset and end >= len(data) else data[offset:end])
        entries = await self._entries(digest)
        return None if entries is None else self._stream(digest, entries, offset, length)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        entries = await self._entries(digest)
        if entries is not None:
            return [Chunk(Digest(chunk), size) for chunk, size in entries]
        return [] if await self.has(digest) else None

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return LocalBlobWriter(
            self._staging(),
            self._blobs,
            self._chunking.cutter(boundaries),
            self._pools,
            compress=self._compress,
        )

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        """Stores short ones together, some MiB a commit; longer ones go one by one."""
        digests: list[Digest] = []
        batch: list[bytes] = []
        batch_bytes = 0
        for data in blobs:
            if len(data) > self._chunking.minimum:
                digests += await self._put_short(batch)
                digests.append(await self.put(data))
                batch, batch_bytes = [], 0
                continue
            batch.append(data)
            batch_bytes += len(data)
            if batch_bytes >= BATCH_BYTES:
                digests += await self._put_short(batch)
                batch, batch_bytes = [], 0
        return digests + await self._put_short(batch)

    async def _put_short(self, blobs: list[bytes]) -> list[Digest]:
        if sum(map(len, blobs)) <= IN_LOOP_BYTES:
            chunks = self._encode(blobs)
        else:
            chunks = await self._pools.background.run(self._encode, blobs)
        staging = self._staging()
        try:
            await staging.add(chunk for chunk in chunks if chunk.size)
            await to_the_end(staging.commit())
        finally:
            await staging.discard()
        return [Digest(chunk.digest) for chunk in chunks]

    def _encode(self, blobs: list[bytes]) -> list[StoredForm]:
        return [encode_chunk(data, compress=self._compress) for data in blobs]

    def _staging(self) -> Staging:
        return Staging(self._store, durable=self._durable)

    async def _entries(self, digest: Digest) -> list[Entry] | None:
        """The chunks that the blob was cut into, or `None` if it is no list of chunks here."""
        value = await self._blobs.get(digest.raw)
        if value is None:
            return None
        try:
            return decode_chunk_list(digest.raw, value)
        except CorruptData as error:
            if await self._blobs.get(digest.raw) == value:
                await self._forget(digest, error)
            raise

    def _stream(
        self, digest: Digest, entries: list[Entry], offset: int, length: int | None
    ) -> ByteStream:
        async def load(entry: Entry) -> bytes:
            chunk, size = entry
            try:
                data = await self._store.load(chunk, IN_LOOP_BYTES_OF_A_STREAM)
                if data is None:
                    raise Incomplete(f"{digest} lacks its chunk b3:{chunk.hex()}", chunk)
            except (CorruptData, Incomplete) as error:
                # Unless somebody has stored that chunk anew by now, and maybe the blob with it.
                if await self._store.index.get(chunk) is None:
                    await self._forget(digest, error)
                raise
            return data

        total = sum(size for _, size in entries)
        wanted = max(0, total - offset)
        if length is not None:
            wanted = min(wanted, length)
        return ReadAhead(entries, load, offset, wanted)

    async def _forget(self, digest: Digest, reason: StoreError) -> None:
        """Makes a blob absent that cannot be read, so that it is stored anew."""
        try:
            await self._blobs.apply([(digest.raw, None)])
        except StoreError as error:
            _log.error("blob.not_forgotten", blob=digest, reason=str(error))
            return
        _log.error("blob.forgotten", blob=digest, reason=str(reason))
