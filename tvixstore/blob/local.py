"""Blobs on this machine: chunks, each kept once, and lists of the chunks of longer blobs.

A blob that is one chunk is kept as just that chunk, so most blobs are one lookup in the index.
Chunks are written before the list that names them. A list is written by whoever hashed the whole
blob, and carries a check of its own; so parts can be read by it, and a whole blob is verified when
each of its chunks is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tvixstore.blob.audit import BlobAudit
from tvixstore.blob.chunk_codec import StoredForm, encode_chunks
from tvixstore.blob.chunk_files import ChunkFiles
from tvixstore.blob.chunk_list import Entry
from tvixstore.blob.chunk_lists import ChunkLists
from tvixstore.blob.chunk_store import IN_LOOP_BYTES_OF_A_STREAM, ChunkStore
from tvixstore.blob.chunking import Chunking
from tvixstore.blob.local_writer import IN_LOOP_BYTES, LocalBlobWriter
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.staging import Staging, to_the_end
from tvixstore.blob.sweep import sweep
from tvixstore.castore import EMPTY_DIGEST, Digest, FileNode
from tvixstore.errors import CorruptData, Incomplete
from tvixstore.kv import BLOB
from tvixstore.kv.held import HeldStream
from tvixstore.streams import BytesStream, ByteStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tvixstore.kv import DiskGuard, Durability, Hold, Holds, KeyValue, References
    from tvixstore.metrics import Metrics
    from tvixstore.pools import Pools

Compression = Literal["auto", "none"]

# Of short blobs that are stored together, what goes into one commit.
BATCH_BYTES = 8 << 20
# What a blob costs, however short it is, as much as so many bytes.
_EACH = 64


class LocalBlobService(BlobService):
    """Blobs in two tables, and in files below `directory / "chunks"`.

    One instance a directory at a time: the state directory's lock sees to that. Its constructor
    blocks for some milliseconds and raises `ConfigError`. `chunk_size` is the average. Writing
    raises `StorageFull` where the disk or `guard` has no room; nothing of the blob stays then.
    With `references`, whose tables these then are, what is put is counted, what is found is held.
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
        references: References | None = None,
    ) -> None:
        self._lists = ChunkLists(table_blobs, references)
        self._directory = directory
        self._pools = pools
        self._chunking = Chunking(chunk_size)
        self._compress = compression == "auto"
        self._durable = durability == "power"
        files = ChunkFiles(directory / "chunks", durable=self._durable)
        self._references = references
        self._store = ChunkStore(table_chunks, files, pools, guard, metrics, references)

    def __repr__(self) -> str:
        return f"local {self._directory}"

    @property
    def dropped_chunks(self) -> int:
        """How many chunks were found corrupt or missing, and dropped, since start."""
        return self._store.dropped

    def write_as(self, chunk_size: int, compression: Compression) -> None:
        """From now on blobs are cut and compressed like that."""
        if chunk_size != self._chunking.average:
            self._chunking = Chunking(chunk_size)
        self._compress = compression == "auto"

    def audit(self) -> BlobAudit:
        """For whoever goes through all of it."""
        return BlobAudit(self._lists.table, self._store, self._lists.forget)

    async def sweep(self) -> int:
        """Removes chunk files that nothing names; how many there were."""
        return await sweep(self._store)

    async def has(self, digest: Digest) -> bool:
        # Who is told that it is here will not write it.
        await self._store.hold([digest.raw])
        return (
            digest == EMPTY_DIGEST
            or await self._store.index.get(digest.raw) is not None
            or await self._lists.has(digest)
        )

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        wanted = {digest.raw: digest for digest in digests}
        wanted.pop(EMPTY_DIGEST.raw, None)
        await self._store.hold(wanted)
        absent = await self._store.index.absent(list(wanted))
        absent = await self._lists.table.absent(absent)
        return {wanted[raw] for raw in absent}

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        if digest == EMPTY_DIGEST:
            return b""
        data = await self._store.load(digest.raw)
        return await super().read(digest, size) if data is None else data

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        return await self._store.at_hand(files)

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
        if self._references is None:
            entries = await self._lists.get(digest)
            return None if entries is None else self._stream(digest, entries, offset, length)
        if (held := await self._hold_list(digest, self._references.holds)) is None:
            return None
        entries, hold = held
        return HeldStream(self._stream(digest, entries, offset, length), hold)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        await self._store.hold([digest.raw])
        entries = await self._lists.get(digest)
        if entries is not None:
            return [Chunk(Digest(chunk), size) for chunk, size in entries]
        return [] if await self.has(digest) else None

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return LocalBlobWriter(
            self._staging(),
            self._lists,
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

    async def put_lacking(self, blobs: Mapping[Digest, bytes]) -> int:
        if any(len(data) > self._chunking.minimum for data in blobs.values()):
            return await super().put_lacking(blobs)
        lacking = await self.lacking(list(blobs))
        new = {digest.raw: data for digest, data in blobs.items() if digest in lacking}
        if new:
            await self._store_short(list(new.values()), list(new))
        return sum(map(len, new.values()))

    async def _put_short(self, blobs: list[bytes]) -> list[Digest]:
        return [Digest(chunk.digest) for chunk in await self._store_short(blobs)]

    async def _store_short(
        self, blobs: list[bytes], digests: list[bytes] | None = None
    ) -> list[StoredForm]:
        if sum(map(len, blobs)) + _EACH * len(blobs) <= IN_LOOP_BYTES:
            chunks = self._encode(blobs, digests)
        else:
            chunks = await self._pools.background.run(self._encode, blobs, digests)
        staging = self._staging()
        try:
            await staging.add(chunk for chunk in chunks if chunk.size)
            await to_the_end(staging.commit())
        finally:
            await staging.discard()
        return chunks

    def _encode(self, blobs: list[bytes], digests: list[bytes] | None) -> list[StoredForm]:
        return encode_chunks(blobs, compress=self._compress, digests=digests)

    async def _hold_list(self, digest: Digest, holds: Holds) -> tuple[list[Entry], Hold] | None:
        """The list of its chunks, and a hold for as long as they are read, one after the other.

        Each of them is held: somebody may cut the blob in another way meanwhile, and then it is
        the new list that keeps its chunks.
        """
        entries: list[Entry] | None = None
        while True:
            keys = {BLOB + chunk for chunk, _ in entries or ()}
            hold = await holds.hold(BLOB + digest.raw, *keys)
            try:
                found = await self._lists.get(digest)
            except BaseException:
                hold.release()
                raise
            if found is not None and found == entries:
                return found, hold
            hold.release()
            if found is None:
                return None
            entries = found

    def _staging(self) -> Staging:
        return Staging(self._store, durable=self._durable)

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
                    await self._lists.forget_list(digest, entries, error)
                raise
            return data

        total = sum(size for _, size in entries)
        wanted = max(0, total - offset)
        if length is not None:
            wanted = min(wanted, length)
        return ReadAhead(entries, load, offset, wanted)
