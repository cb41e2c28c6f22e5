"""Listings of NARs (`.ls`): JSON as Nix 2.8 writes it, to the byte.

The text is put together piece by piece rather than by `json`, since an archive's directories nest
and Nix escapes no more than JSON demands, and that in its own way.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator

from tvixstore.castore import Entry, FileNode, Node, SymlinkNode
from tvixstore.errors import Unsupported
from tvixstore.nar.reader import CloseDirectory, NarReader, OpenDirectory, Regular, Symlink
from tvixstore.nar.sizes import check_level, fetch_directory
from tvixstore.nar.turns import Turns
from tvixstore.nar.writer import (
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)
from tvixstore.tree import Content

_ESCAPES = str.maketrans(
    {chr(code): f"\\u{code:04x}" for code in range(32)}
    | {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
)


async def listing(content: Content, node: Node) -> bytes:
    """The listing of `node`'s NAR, from its Directories alone: no blob is read.

    Raises `Unsupported` for names and targets that are not UTF-8, `Incomplete` if a Directory is
    missing, `InvalidData` if the tree is too deep.
    """
    async with content.keeping(node):
        return await _listing(content, node)


async def _listing(content: Content, node: Node) -> bytes:
    writer = _ListingWriter()
    turns = Turns()
    offset = 0
    above: list[tuple[Iterator[Entry], bytes]] = []
    entries: Iterator[Entry] = iter([(b"", node)])
    while True:
        for name, child in entries:
            await turns.take()
            if isinstance(child, FileNode):
                offset += len(open_regular(name, child.size, child.executable))
                writer.regular(name, child.size, child.executable, offset)
                offset += child.size + len(close_regular(name, child.size))
            elif isinstance(child, SymlinkNode):
                offset += len(symlink(name, child.target))
                writer.symlink(name, child.target)
            else:
                offset += len(open_directory(name))
                writer.open_directory(name)
                above.append((entries, name))
                fetched = await fetch_directory(content, child.digest)
                if fetched.entries:
                    check_level(len(above) + 1)
                entries = iter(fetched)
                break
        else:
            if not above:
                return writer.finish()
            entries, name = above.pop()
            offset += len(close_directory(name))
            writer.close_directory()


async def listing_of_nar(stream: AsyncIterable[bytes]) -> bytes:
    """The listing of a NAR that comes in as bytes; nothing of it is kept.

    Raises `InvalidData` if it is not a NAR, `Unsupported` for names and targets that are not UTF-8.
    The caller closes the stream.
    """
    writer = _ListingWriter()
    turns = Turns()
    reader = NarReader()
    async for piece in stream:
        reader.feed(piece)
        for event in reader.events():
            await turns.take()
            match event:
                case Regular(name, size, executable, offset):
                    writer.regular(name, size, executable, offset)
                case Symlink(name, target):
                    writer.symlink(name, target)
                case OpenDirectory(name):
                    writer.open_directory(name)
                case CloseDirectory():
                    writer.close_directory()
    reader.finish()
    return writer.finish()


class _ListingWriter:
    def __init__(self) -> None:
        self._parts = ['{"version":1,"root":']
        # Between the entries of a directory; nothing before its first one.
        self._comma = ""

    def open_directory(self, name: bytes) -> None:
        self._add(name, '{"type":"directory","entries":{')
        self._comma = ""

    def close_directory(self) -> None:
        self._parts.append("}}")
        self._comma = ","

    def regular(self, name: bytes, size: int, executable: bool, offset: int) -> None:
        executable_key = ',"executable":true' if executable else ""
        self._add(name, f'{{"type":"regular","size":{size}{executable_key},"narOffset":{offset}}}')

    def symlink(self, name: bytes, target: bytes) -> None:
        self._add(name, f'{{"type":"symlink","target":{_quoted(target)}}}')

    def finish(self) -> bytes:
        return "".join((*self._parts, "}")).encode()

    def _add(self, name: bytes, node: str) -> None:
        key = f"{self._comma}{_quoted(name)}:" if name else ""
        self._parts.append(key + node)
        self._comma = ","


def _quoted(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Unsupported(f"{data!r} is not UTF-8, so there is no listing of its path") from None
    return f'"{text.translate(_ESCAPES)}"'
