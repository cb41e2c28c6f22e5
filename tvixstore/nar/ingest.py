"""NARs into castore.

Small files go to the blob service in batches, so that a backend can make a thousand of them durable
in one go; large ones are streamed. A Directory can be built once the digests of all its files are
known, hence with the batch that holds the last of them, and is stored only after the whole archive
turned out valid: an invalid one leaves blobs that nothing names, and no Directory.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SizeRule,
    SymlinkNode,
)
from tvixstore.nar.reader import (
    CloseDirectory,
    Contents,
    Event,
    NarReader,
    OpenDirectory,
    Regular,
    Symlink,
)
from tvixstore.nar.shelf import DirectoryShelf
from tvixstore.nar.turns import Turns
from tvixstore.pools import Pools
from tvixstore.tree import Content

if TYPE_CHECKING:
    from tvixstore.blob import BlobWriter

# A batch is full at so many blobs, bytes of them, or Directories that wait for them.
BATCH_ITEMS = 1000
BATCH_BYTES = 4 * 1024 * 1024
# Files up to this size are gathered in memory: the smallest chunk by default, so none is cut.
SMALL = 128 * 1024
# Building a Directory of this many entries takes more than a millisecond.
_MANY_ENTRIES = 256
# Digests of Directories that were seen. Forgetting them costs storing one twice, nothing else.
_REMEMBERED = 1 << 16

# A directory's entries as far as they are known, in any order.
_Entries: TypeAlias = dict[bytes, Node]


async def ingest(
    content: Content,
    source: AsyncIterable[bytes],
    *,
    pools: Pools | None = None,
    spool: Path | None = None,
    sizes: SizeRule = SizeRule.DOCUMENTED,
) -> Node:
    """Stores the tree in the NAR that `source` gives; returns its root. Its Directories state
    their sizes by the rule `sizes`.

    Raises `InvalidData` if it is not a NAR; then no Directory was stored. Cancelled, it leaves no
    writer open. Memory is bounded by the largest single directory: what Directories of a huge NAR
    wait for its end go to an unnamed file in the folder `spool`. The caller closes `source`.
    """
    reader = NarReader()
    turns = Turns()
    work = _Ingest(content, pools, turns, spool, sizes)
    try:
        async for piece in source:
            reader.feed(piece)
            for event in reader.events():
                await turns.take()
                await work.take(event)
        reader.finish()
        return await work.finish()
    finally:
        await work.abort()


@dataclass(slots=True)
class _OpenDirectory:
    name: bytes
    entries: _Entries = field(default_factory=dict)


@dataclass(slots=True)
class _File:
    """A file, which is going to be an entry in `directory`."""

    directory: _Entries
    name: bytes
    size: int
    executable: bool

    def enter(self, digest: Digest) -> None:
        self.directory[self.name] = FileNode(digest, self.size, self.executable)


@dataclass(slots=True)
class _OpenFile:
    """A file whose contents are coming in: to `writer`, or into `parts` if it is small."""

    file: _File
    left: int
    writer: BlobWriter | None
    parts: list[bytes] = field(default_factory=list)


class _Ingest:
    def __init__(
        self,
        content: Content,
        pools: Pools | None,
        turns: Turns,
        spool: Path | None,
        sizes: SizeRule,
    ) -> None:
        self._content = content
        self._sizes = sizes
        self._pools = pools
        self._turns = turns
        # The directories that are open. The first is none: its one entry is the root.
        self._open = [_OpenDirectory(b"")]
        self._open_file: _OpenFile | None = None
        # The batch: small files with their contents, and directories that were closed, children
        # before parents, each with the entries of its parent.
        self._files: list[tuple[_File, bytes]] = []
        self._files_bytes = 0
        self._closed: list[tuple[_OpenDirectory, _Entries]] = []
        self._seen: set[Digest] = set()
        self._shelf = DirectoryShelf(pools, spool)

    async def take(self, event: Event) -> None:
        match event:
            case Regular():
                await self._take_file(event)
            case Contents(data):
                assert self._open_file is not None
                await self._take_contents(self._open_file, data)
            case Symlink(name, target):
                self._entries[name] = SymlinkNode(target)
            case OpenDirectory(name):
                self._open.append(_OpenDirectory(name))
            case CloseDirectory():
                closed = self._open.pop()
                self._closed.append((closed, self._entries))
                if len(self._closed) >= BATCH_ITEMS:
                    await self._flush()

    async def finish(self) -> Node:
        """Stores all Directories; returns the root."""
        await self._flush()
        async with aclosing(self._shelf.batches()) as batches:
            async for batch in batches:
                await self._content.directories.put_many(batch)
        return self._entries[b""]

    async def abort(self) -> None:
        """Lets go of everything that is open."""
        self._shelf.close()
        if self._open_file is not None and self._open_file.writer is not None:
            await self._open_file.writer.abort()

    @property
    def _entries(self) -> _Entries:
        return self._open[-1].entries

    async def _take_file(self, event: Regular) -> None:
        size, contents = event.size, event.contents
        file = _File(self._entries, event.name, size, event.executable)
        if size == 0:
            file.enter(EMPTY_DIGEST)
        elif len(contents) == size <= SMALL:
            await self._add_small(file, contents)
        else:
            writer = None if size <= SMALL else await self._content.blobs.open_write()
            self._open_file = _OpenFile(file, size, writer)
            if contents:
                await self._take_contents(self._open_file, contents)

    async def _take_contents(self, opened: _OpenFile, data: bytes) -> None:
        opened.left -= len(data)
        if opened.writer is None:
            opened.parts.append(data)
        else:
            await opened.writer.write(data)
        if opened.left == 0:
            if opened.writer is None:
                await self._add_small(opened.file, b"".join(opened.parts))
            else:
                opened.file.enter(await opened.writer.close())
            self._open_file = None

    async def _add_small(self, file: _File, contents: bytes) -> None:
        self._files.append((file, contents))
        self._files_bytes += len(contents)
        if len(self._files) >= BATCH_ITEMS or self._files_bytes >= BATCH_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        """Stores the batch's blobs, after which its directories are complete."""
        if self._files:
            digests = await self._content.blobs.put_many([data for _, data in self._files])
            for (file, _), digest in zip(self._files, digests, strict=True):
                file.enter(digest)
        for closed, parent in self._closed:
            directory = await self._build(closed.entries)
            parent[closed.name] = DirectoryNode(directory.digest, self._sizes.size_of(directory))
            if directory.digest not in self._seen:
                await self._shelf.add(directory)
                if len(self._seen) >= _REMEMBERED:
                    self._seen.clear()
                self._seen.add(directory.digest)
        self._files, self._files_bytes, self._closed = [], 0, []

    async def _build(self, entries: _Entries) -> Directory:
        await self._turns.take(len(entries))
        if len(entries) < _MANY_ENTRIES or self._pools is None:
            return _build(entries)
        return await self._pools.cpu.run(_build, entries)


def _build(entries: _Entries) -> Directory:
    directory = Directory.of(entries.items())
    # Encoded and hashed here, that is in a thread where it is a large one.
    _ = directory.digest
    return directory
