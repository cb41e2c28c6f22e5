"""What is inside of store paths: found by name, a Directory at a time, and read from there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.directory.closure import checked_closure
from tvixstore.errors import AbsentPath, CorruptData, Incomplete, InvalidData
from tvixstore.nar import render
from tvixstore.nar.sizes import check_level
from tvixstore.nix import STORE_DIR, StorePath
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

# So much is listed before others have their turn.
_A_TURN: Final = 1000

# A name below where it was begun, with slashes, and what is there.
Found: TypeAlias = tuple[bytes, Node]


@dataclass(frozen=True, slots=True)
class Inside:
    """A place in a store path; without `names`, all of it."""

    store_path: StorePath
    names: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes | os.PathLike[str]) -> Inside:
        """From `/nix/store/<32 digits>-<name>`, or its base name, with anything behind it.

        Raises `InvalidData`, saying what would be right.
        """
        path = os.fsencode(text)
        base_name, _, inside = path.removeprefix(STORE_DIR.encode() + b"/").partition(b"/")
        names = [name for name in inside.split(b"/") if name not in (b"", b".")]
        if b".." in names:
            raise InvalidData(f"{shown(path)} has a .. in it: write where that leads to")
        try:
            store_path = StorePath.from_base_name(base_name.decode())
        except (InvalidData, UnicodeDecodeError):
            raise InvalidData(
                f"{shown(path)!r} is not in a store path: write {STORE_DIR}/HASH-NAME or "
                "HASH-NAME, and what is inside of it"
            ) from None
        return cls(store_path, tuple(names))

    def __str__(self) -> str:
        return "/".join([str(self.store_path), *map(shown, self.names)])


def shown(name: bytes) -> str:
    """For messages: nothing that a terminal would obey."""
    text = name.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


@dataclass(frozen=True, slots=True)
class TreeReader:
    """Looks into the paths of one store.

    A root comes from `path_infos`, which fetches what is nowhere but in a binary cache as a whole;
    what is below it from `content`, and no more of that than is needed.
    """

    path_infos: PathInfoService
    content: Content

    async def info(self, path: StorePath) -> PathInfo:
        """Raises `AbsentPath`."""
        info = await self.path_infos.get(path.hash)
        if info is None or info.store_path != path:
            raise AbsentPath(f"{path} is nowhere to be had")
        return info

    async def find(self, inside: Inside) -> Node:
        """What is there. Links are not followed. Raises `AbsentPath`."""
        node = (await self.info(inside.store_path)).node
        for depth, name in enumerate(inside.names, 1):
            below: Node | None = None
            if isinstance(node, DirectoryNode):
                below = (await self._directory(node)).get(name)
            if below is None:
                missing = Inside(inside.store_path, inside.names[:depth])
                raise AbsentPath(f"{missing} does not exist{_followed(node)}")
            node = below
        return node

    async def list(self, inside: Inside, *, recursive: bool = False) -> AsyncGenerator[Found, None]:
        """What a folder holds, in the order of a NAR, each with its name below `inside`.

        What is no folder is told of itself, without a name.
        """
        node = await self.find(inside)
        if not isinstance(node, DirectoryNode):
            yield b"", node
            return
        if not recursive:
            for found in await self._directory(node):
                yield found
            return
        closure = await closure_of(self.content, node.digest)
        for number, found in enumerate(walk_closure(closure, node.digest), 1):
            yield found
            if number % _A_TURN == 0:
                await asyncio.sleep(0)

    async def open_file(
        self, inside: Inside, offset: int = 0, length: int | None = None
    ) -> ByteStream:
        """A file's bytes from `offset`, at most `length` of them. Raises `AbsentPath` where nothing
        is, `InvalidData` where something else is, or for a range that no file has."""
        if offset < 0 or (length is not None and length < 0):
            raise InvalidData(f"{inside}: offset {offset}, length {length}: neither is below 0")
        node = await self.find(inside)
        if not isinstance(node, FileNode):
            kind = "a folder" if isinstance(node, DirectoryNode) else "a symbolic link"
            raise InvalidData(f"{inside} is {kind} and not a file{_followed(node)}")
        stream = await self.content.blobs.open_read(node.digest, offset, length, node.size)
        if stream is None:
            raise Incomplete(f"{inside}: blob {node.digest} is missing", node.digest.raw)
        left = max(0, node.size - offset)
        return _Exactly(stream, left if length is None else min(left, length), inside)

    async def open_nar(self, inside: Inside) -> ByteStream:
        """The NAR of a path as it becomes available, or of what is inside of one."""
        if inside.names:
            return render(self.content, await self.find(inside))
        description = await self.path_infos.describe(inside.store_path.hash)
        stream = None
        if description is not None and description.store_path == inside.store_path:
            stream = await self.path_infos.open_nar(description)
        if stream is None:
            raise AbsentPath(f"{inside} is nowhere to be had")
        return stream

    async def _directory(self, node: DirectoryNode) -> Directory:
        directory = await self.content.directories.get(node.digest)
        if directory is None:
            raise Incomplete(f"Directory {node.digest} is missing", node.digest.raw)
        return directory


class _Exactly(ByteStream):
    """`left` bytes of a file: a Directory may say another size than its blob has."""

    def __init__(self, stream: ByteStream, left: int, inside: Inside) -> None:
        self._stream = stream
        self._left = left
        self._inside = inside

    async def __anext__(self) -> bytes:
        try:
            part = await self._stream.__anext__()
        except StopAsyncIteration:
            if self._left:
                raise self._error() from None
            raise
        self._left -= len(part)
        if self._left < 0:
            raise self._error()
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _error(self) -> CorruptData:
        return CorruptData(f"{self._inside}: its blob is not as many bytes long as its file says")


async def closure_of(content: Content, root: Digest) -> dict[Digest, Directory]:
    """All Directories from `root` on, verified. Raises `Incomplete`."""
    closure: dict[Digest, Directory] = {}
    async with aclosing(checked_closure(content.directories, root)) as directories:
        async for directory in directories:
            closure[directory.digest] = directory
    if root not in closure:
        raise Incomplete(f"Directory {root} is missing", root.raw)
    return closure


def walk_closure(closure: Mapping[Digest, Directory], root: Digest) -> Iterator[Found]:
    """Everything below `root`, each folder before what it holds, in the order of a NAR.

    One by one: a few Directories, each of them twice in the next, are more than memory can hold.
    Raises `InvalidData` where a tree is deeper than a NAR can be.
    """
    stack = [(b"", iter(closure[root].entries))]
    while stack:
        above, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name, node = entry
        yield above + name, node
        if isinstance(node, DirectoryNode):
            check_level(len(stack) + 1)
            stack.append((above + name + b"/", iter(closure[node.digest].entries)))


def _followed(node: Node) -> str:
    """What to say of a link that was in the way."""
    if not isinstance(node, SymlinkNode):
        return ""
    return f": links are not followed, and that one leads to {shown(node.target)}"
