"""NARs out of castore: depth first, from any offset, a piece at a time.

What comes before the offset is skipped by its size, so no blob of it is read and, thanks to
`sizes`, usually no Directory fetched either. Framing and small files are gathered into pieces; the
parts of a large blob go out as its service hands them over, and are joined only if they are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.castore import EMPTY_DIGEST, DirectoryNode, Entry, FileNode, Node, SymlinkNode
from tvixstore.errors import CorruptData, Incomplete
from tvixstore.nar.sizes import check_level, fetch_directory, node_size
from tvixstore.nar.turns import Turns
from tvixstore.nar.writer import (
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

if TYPE_CHECKING:
    from tvixstore.kv import Hold

# aiohttp writes pieces of this size 2.5 times as fast as single small files.
PIECE = 128 * 1024
# Blobs up to this size are read whole: services have them in a table, not in a file.
SMALL = 64 * 1024
_ENDLESS = 2**64


def render(content: Content, node: Node, offset: int = 0, length: int | None = None) -> ByteStream:
    """`node`'s NAR from `offset`, at most `length` bytes of it; past its end, an empty stream.

    From its first piece on the tree is held, until the stream is closed or at its end.
    The stream breaks with `Incomplete`, which names the digest, where a blob or a Directory is
    missing; with `CorruptData` where a file has another size than its blob; and with `InvalidData`
    where the tree is deeper than a NAR can be.
    """
    return _NarStream(content, node, offset, _ENDLESS if length is None else length)


@dataclass(slots=True)
class _LargeFile:
    """A file that is being handed out: its blob's stream, and how much that still has to give."""

    node: FileNode
    stream: ByteStream
    left: int
    end: bytes


class _NarStream(ByteStream):
    def __init__(self, content: Content, root: Node, offset: int, length: int) -> None:
        self._content = content
        self._root = root
        self._hold: Hold | None = None
        self._begun = False
        self._turns = Turns()
        # How many bytes are still to be left out, and how many then to be handed out.
        self._skip = offset
        self._left = length
        # What is ready to be handed out, and how much of it makes a piece.
        self._parts: list[bytes] = []
        self._held = 0
        self._enough = min(PIECE, length)
        # What is still to come: of the directory at hand; of those above it, each with the name
        # of the one that was entered; and of the large file at hand.
        self._entries: Iterator[Entry] = iter([(b"", root)])
        self._above: list[tuple[Iterator[Entry], bytes]] = []
        self._file: _LargeFile | None = None

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            self._hold = await self._content.hold(self._root)
        while self._held < self._enough and await self._step():
            await self._turns.take()
        if self._held and self._left:
            return self._take_piece()
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._left = self._enough = 0
        self._begun = True
        try:
            if self._file is not None:
                await self._file.stream.aclose()
        finally:
            if self._hold is not None:
                self._hold.release()

    def _take_piece(self) -> bytes:
        parts = self._parts
        # A large part is not worth a copy: it goes out as it is, next.
        self._parts = [parts.pop()] if len(parts) > 1 and len(parts[-1]) >= PIECE else []
        piece = b"".join(parts)
        self._held -= len(piece)
        # Only the last piece can be longer than what is left.
        piece = piece[: self._left]
        self._left -= len(piece)
        self._enough = min(PIECE, self._left)
        return piece

    def _add(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._parts.append(data)
        self._held += len(data)

    async def _step(self) -> bool:
        """Adds the next entry, or a part of a large file; `False` at the end of the NAR."""
        if self._file is not None:
            await self._continue_file(self._file)
            return True
        for name, node in self._entries:
            if self._skip and await self._skips(name, node):
                pass
            elif isinstance(node, FileNode):
                await self._begin_file(name, node)
            elif isinstance(node, SymlinkNode):
                self._add(symlink(name, node.target))
            else:
                await self._enter(name, node)
            return True
        if not self._above:
            return False
        self._entries, name = self._above.pop()
        self._add(close_directory(name))
        return True

    async def _skips(self, name: bytes, node: Node) -> bool:
        """Whether all of `node` comes before the offset; then it is done with."""
        size = await node_size(self._content, name, node, len(self._above) + 1)
        if size > self._skip:
            return False
        self._skip -= size
        return True

    async def _enter(self, name: bytes, node: DirectoryNode) -> None:
        self._add(open_directory(name))
        self._above.append((self._entries, name))
        fetched = await fetch_directory(self._content, node.digest)
        if fetched.entries:
            check_level(len(self._above) + 1)
        self._entries = iter(fetched)

    async def _begin_file(self, name: bytes, node: FileNode) -> None:
        self._add(open_regular(name, node.size, node.executable))
        end = close_regular(name, node.size)
        skipped = min(self._skip, node.size)
        wanted = max(0, min(node.size - skipped, self._left - self._held))
        if wanted == 0 and (skipped or node.size or node.digest == EMPTY_DIGEST):
            # All of its contents are before the offset, or behind what was asked for.
            self._skip -= skipped
            self._add(end)
        elif node.size <= SMALL:
            data = await self._content.blobs.read(node.digest, node.size)
            if data is None:
                raise _missing(node)
            if len(data) != node.size:
                raise _other_size(node)
            self._add(data)
            self._add(end)
        else:
            self._skip = 0
            # Read to its end where the end is wanted: then one that is too long shows, too.
            length = None if wanted == node.size - skipped else wanted
            stream = await self._content.blobs.open_read(node.digest, skipped, length, node.size)
            if stream is None:
                raise _missing(node)
            self._file = _LargeFile(node, stream, wanted, end)

    async def _continue_file(self, file: _LargeFile) -> None:
        part = await anext(file.stream, None)
        if part is not None:
            file.left -= len(part)
            if file.left < 0:
                raise _other_size(file.node)
            self._add(part)
        elif file.left:
            raise _other_size(file.node)
        else:
            await file.stream.aclose()
            self._file = None
            self._add(file.end)


def _missing(node: FileNode) -> Incomplete:
    return Incomplete(f"blob {node.digest} is missing", node.digest.raw)


def _other_size(node: FileNode) -> CorruptData:
    return CorruptData(f"blob {node.digest} is not {node.size} bytes long, as its file says")
