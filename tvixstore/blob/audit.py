"""Everything that a local blob service keeps, gone through: in threads, and changing nothing.

What looks wrong is looked at once more before it is told, because stores change while they are
read. Whoever wants it gone says so.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tvixstore.blob.chunk_codec import Record, decode_chunk, is_in_file, size_of
from tvixstore.blob.chunk_list import Entry, decode_chunk_list
from tvixstore.blob.chunk_store import LOST
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import CorruptData, Incomplete, ReadOnly, StoreError, Unavailable
from tvixstore.kv import Damage, TableReader
from tvixstore.streams import BytesStream, ByteStream

if TYPE_CHECKING:
    from tvixstore.blob.chunk_store import ChunkStore
    from tvixstore.kv import KeyValue

# Chunks read in one go: files among them are up to a MiB each.
_CHUNKS: Final = 8
_HEX: Final = frozenset("0123456789abcdef")
# A chunk's file name: its digest.
_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects that were looked at: how many, their bytes, and which of them are wrong."""

    done: int
    size: int
    damaged: Sequence[Damage] = ()


@dataclass(frozen=True, slots=True)
class StrayFile:
    """A file among the chunks that no entry of the index is about; `ours` if it is named as one."""

    path: str
    ours: bool


class BlobAudit:
    """The tables and files of one local blob service."""

    def __init__(
        self,
        lists: KeyValue,
        store: ChunkStore,
        forget: Callable[[Digest, bytes, StoreError], Awaitable[None]],
    ) -> None:
        self._store = store
        self._forget = forget
        self._pool = store.pools.background
        self._chunks = TableReader(store.index, self._pool)
        self._lists = TableReader(lists, self._pool)

    async def chunk_count(self) -> int | None:
        return await self._chunks.count()

    async def list_count(self) -> int | None:
        return await self._lists.count()

    async def chunks(self) -> AsyncGenerator[Page, None]:
        """Reads every chunk, and holds it against its digest."""
        after: bytes | None = None
        while rows := await self._chunks.page(after, _CHUNKS):
            size, suspects = await self._pool.run(self._check_chunks, rows)
            damaged = [found for each in suspects if (found := await self._look_again(each.key))]
            yield Page(len(rows), size, damaged)
            after = rows[-1][0]

    async def check_chunk(self, digest: bytes) -> Damage | None:
        """What is wrong with that chunk, if anything is; a chunk that is absent is not wrong."""
        (row,) = await self._chunks.get_many([digest])
        if row is None:
            return None
        _, suspects = await self._pool.run(self._check_chunks, [(digest, row)])
        return await self._look_again(digest) if suspects else None

    async def drop_chunk(self, damage: Damage) -> bool:
        """Makes that chunk absent, unless it can be read by now."""
        return await self._store.drop(damage.key, CorruptData(damage.reason))

    async def lists(self) -> AsyncGenerator[Page, None]:
        """Holds every list of chunks against its check, and its chunks against what is there.

        Chunks that are right, in a list that is right, are the blob: its list was written by
        whoever had hashed all of it, and its check binds it to the blob's digest.
        """
        after: bytes | None = None
        while rows := await self._lists.page(after, _CHUNKS):
            suspects = [row for row in rows if await self._list_trouble(*row) is not None]
            damaged = [found for row in suspects if (found := await self.check_list(row[0]))]
            yield Page(len(rows), sum(len(row) for _, row in rows), damaged)
            after = rows[-1][0]

    async def check_list(self, digest: bytes) -> Damage | None:
        """What is wrong with that blob's list of chunks, if it has one and anything is."""
        (row,) = await self._lists.get_many([digest])
        if row is None or (reason := await self._list_trouble(digest, row)) is None:
            return None
        # Taken apart meanwhile, perhaps: then the list goes before its chunks.
        return Damage(digest, reason, row) if await self._is_list(digest, row) else None

    async def drop_list(self, damage: Damage) -> bool:
        """Makes that blob absent, unless another list took the place of the damaged one."""
        if damage.row is None or not await self._is_list(damage.key, damage.row):
            return False
        await self._forget(Digest(damage.key), damage.row, CorruptData(damage.reason))
        return not await self._is_list(damage.key, damage.row)

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        """The sizes of blobs, as the index has them; `None` for those that are absent."""
        raw = [digest.raw for digest in digests]
        found = [
            0 if digest == EMPTY_DIGEST else None if head is None else size_of(head)
            for digest, head in zip(digests, await self._chunk_heads(raw), strict=True)
        ]
        absent = [place for place, size in enumerate(found) if size is None]
        for place, row in zip(
            absent, await self._lists.get_many([raw[place] for place in absent]), strict=True
        ):
            if row is not None:
                found[place] = _list_size(raw[place], row)
        return found

    async def strays(self) -> AsyncGenerator[Sequence[StrayFile], None]:
        """Files among the chunks that the index does not know, a folder at a time."""
        root = os.fspath(self._store.files.root)
        for byte in range(256):
            folder = os.path.join(root, f"{byte:02x}")
            names = await self._pool.run(_names_in, folder)
            ours = [name for name in names if _is_ours(name, f"{byte:02x}")]
            foreign = set(names).difference(ours)
            strays = [StrayFile(os.path.join(folder, name), False) for name in sorted(foreign)]
            heads = await self._chunk_heads([bytes.fromhex(name) for name in ours])
            for name, head in zip(ours, heads, strict=True):
                if (head is None or not is_in_file(head)) and (
                    await self.is_stray(stray := StrayFile(os.path.join(folder, name), True))
                ):
                    strays.append(stray)
            yield strays

    async def is_stray(self, stray: StrayFile) -> bool:
        """Whether it is still there, and still of no use."""
        digest = bytes.fromhex(os.path.basename(stray.path))
        await self._store.settled(digest)
        return (
            not await self._is_used(digest)
            and await self._pool.run(os.path.lexists, stray.path)
            and not await self._is_used(digest)
        )

    async def remove_stray(self, stray: StrayFile) -> bool:
        """Removes it, unless it is not ours, or has come to be of use."""
        digest = bytes.fromhex(os.path.basename(stray.path)) if stray.ours else None
        if digest is None or await self._is_used(digest):
            return False
        # Nothing is awaited since it was found to be of no use: a commit that is about to use it
        # says so first.
        self._store.remove_stray(stray.path)
        return True

    async def load(self, digest: bytes) -> bytes | None:
        """The chunk, verified, or `None` if it is absent. Raises `CorruptData` and `Unavailable`;
        it stays where it is."""
        (row,) = await self._chunks.get_many([digest])
        return None if row is None else await self._pool.run(self._read_chunk, digest, row)

    async def entries(self, digest: bytes) -> list[Entry] | None:
        """The list of that blob's chunks, if it has one. Raises `CorruptData`."""
        (row,) = await self._lists.get_many([digest])
        return None if row is None else decode_chunk_list(digest, row)

    def _check_chunks(self, rows: Sequence[tuple[bytes, bytes]]) -> tuple[int, list[Damage]]:
        """In a thread: how many bytes were read, and what is wrong with any of them."""
        size = 0
        damaged = []
        for digest, row in rows:
            try:
                size += len(self._read_chunk(digest, row))
            except Unavailable as error:
                damaged.append(Damage(digest, str(error), row, unread=True))
            except CorruptData as error:
                damaged.append(Damage(digest, str(error), row))
        return size, damaged

    def _read_chunk(self, digest: bytes, row: bytes) -> bytes:
        """In a thread."""
        record = Record.decode(digest, row)
        if record.payload is not None:
            return decode_chunk(digest, record, record.payload)
        try:
            return decode_chunk(digest, record, self._store.files.read(digest, record.stored))
        except OSError as error:
            message = f"the file of chunk {digest.hex()} cannot be read: {error.strerror}"
            if error.errno in LOST:
                raise CorruptData(message) from error
            raise Unavailable(message) from error

    async def _look_again(self, digest: bytes) -> Damage | None:
        """What is wrong with a chunk that looked wrong, if it still does and is still there."""
        async with self._store.dropping:
            # Whoever drops chunks does it in here: between its file and its entry, nobody looks.
            (row,) = await self._chunks.get_many([digest])
            if row is None:
                return None
            _, damaged = await self._pool.run(self._check_chunks, [(digest, row)])
            if not damaged or await self._store.index.get(digest) != row:
                return None
            return damaged[0]

    async def _list_trouble(self, digest: bytes, row: bytes) -> str | None:
        try:
            entries = decode_chunk_list(digest, row)
        except CorruptData as error:
            return str(error)
        heads = await self._chunk_heads([chunk for chunk, _ in entries])
        for (chunk, size), head in zip(entries, heads, strict=True):
            if head is None:
                return f"blob {digest.hex()} lacks its chunk {chunk.hex()}"
            # A chunk whose own entry is damaged is found with the chunks.
            if (found := size_of(head)) not in (None, size):
                return (
                    f"chunk {chunk.hex()} has {found} bytes, not {size} as blob {digest.hex()} says"
                )
        return None

    async def _is_list(self, digest: bytes, row: bytes) -> bool:
        return await self._lists.table.get(digest) == row

    async def _chunk_heads(self, digests: Sequence[bytes]) -> list[bytes | None]:
        return await self._chunks.heads(digests, Record.HEAD_BYTES)

    async def _is_used(self, digest: bytes) -> bool:
        """Whether the index has the chunk as a file, or is about to."""
        row = await self._store.index.get(digest)
        return digest in self._store.committing or (row is not None and is_in_file(row))


class SoundBlobs(BlobService):
    """What a local blob service has, for whoever checks it: nothing is dropped that is damaged."""

    def __init__(self, audit: BlobAudit) -> None:
        self._audit = audit

    async def has(self, digest: Digest) -> bool:
        return (await self._audit.sizes([digest]))[0] is not None

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        if (data := await self._audit.load(digest.raw)) is not None:
            return BytesStream(data[offset : None if length is None else offset + length])
        if (entries := await self._audit.entries(digest.raw)) is None:
            return None
        left = max(0, sum(size for _, size in entries) - offset)
        return ReadAhead(
            entries,
            self._load,
            offset,
            left if length is None else min(left, length),
            chunks_ahead=1,
        )

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        raise ReadOnly("nothing is written by whoever checks")

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        entries = await self._audit.entries(digest.raw)
        if entries is None:
            return [] if await self.has(digest) else None
        return [Chunk(Digest(chunk), size) for chunk, size in entries]

    async def _load(self, entry: Entry) -> bytes:
        chunk, size = entry
        if (data := await self._audit.load(chunk)) is None:
            raise Incomplete(f"chunk {chunk.hex()} is missing", chunk)
        if len(data) != size:
            raise CorruptData(f"chunk {chunk.hex()} has {len(data)} bytes, not {size} as its list")
        return data


def _list_size(blob: bytes, row: bytes) -> int | None:
    try:
        return sum(size for _, size in decode_chunk_list(blob, row))
    except StoreError:
        return None


def _is_ours(name: str, folder: str) -> bool:
    return len(name) == _DIGITS and _HEX.issuperset(name) and name.startswith(folder)


def _names_in(folder: str) -> list[str]:
    """In a thread."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
