"""Closures over any service that gets and puts single Directories: one walk, one putter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing

from tvixstore.castore import ClosureBuilder, ClosureReader, Digest, Directory
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData

# Directories asked for at once: enough to keep a backend busy, and bounded in memory.
_SLICE = 128
# Entries handled in one go (about 1 ms) before other tasks get their turn.
_ENTRIES_A_TURN = 500


class Turns:
    """Lets other tasks run now and then, where nothing else makes this one wait."""

    def __init__(self) -> None:
        self._entries = 0

    async def take(self, directory: Directory) -> None:
        """After each Directory that was handled."""
        self._entries += 1 + len(directory.entries)
        if self._entries >= _ENTRIES_A_TURN:
            self._entries = 0
            await asyncio.sleep(0)


async def walk_closure(
    get_many: Callable[[Sequence[Digest]], Awaitable[list[Directory | None]]],
    root: Digest,
    reader: ClosureReader | None = None,
) -> AsyncGenerator[Directory, None]:
    """`DirectoryService.get_closure` by way of `get_many`, a slice of a level at a time; what
    `reader` has is left out."""
    reader = reader or ClosureReader(root)
    turns = Turns()
    while wanted := reader.missing():
        for start in range(0, len(wanted), _SLICE):
            digests = wanted[start : start + _SLICE]
            for digest, directory in zip(digests, await get_many(digests), strict=True):
                if directory is None:
                    if digest == root:
                        return
                    raise Incomplete(f"Directory {digest} below {root} is missing", digest.raw)
                feed(reader, directory, root)
                yield directory
                await turns.take(directory)


def feed(reader: ClosureReader, directory: Directory, root: Digest) -> None:
    """Raises `CorruptData` for what the closure of `root` cannot hold."""
    try:
        reader.feed(directory)
    except InvalidData as error:
        raise CorruptData(f"closure of {root} as stored: {error}") from error


class ClosurePutter(DirectoryPutter):
    """Holds a closure in memory until `close` has checked it, then puts it in one go."""

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._builder: ClosureBuilder | None = ClosureBuilder()

    async def put(self, directory: Directory) -> None:
        self._open_builder().add(directory)

    async def close(self) -> Digest:
        closure = self._open_builder().finish()
        await self._directories.put_many(closure)
        self._builder = None
        return closure[-1].digest

    async def abort(self) -> None:
        self._builder = None

    def _open_builder(self) -> ClosureBuilder:
        if self._builder is None:
            raise InvalidData("this closure was closed or aborted, and takes nothing more")
        return self._builder


async def checked_closure(
    directories: DirectoryService, root: Digest
) -> AsyncGenerator[Directory, None]:
    """The closure as `directories` streams it, each Directory verified against its parents.

    Raises `CorruptData` for what is not of the closure, or contradicts it, and `Incomplete` where
    it ends too early.
    """
    reader = ClosureReader(root)
    async with aclosing(directories.get_closure(root)) as closure:
        async for directory in closure:
            try:
                reader.feed(directory)
            except InvalidData as error:
                raise CorruptData(f"closure of {root}: {error}") from error
            yield directory
    missing = reader.missing()
    if missing and missing != [root]:
        raise Incomplete(f"Directory {missing[0]} below {root} did not come", missing[0].raw)


def children_first(directories: Mapping[Digest, Directory], root: Digest) -> Iterator[Directory]:
    """A whole closure in the order in which it can be put."""
    done: set[Digest] = set()
    stack = [(root, iter(directories[root].children))]
    while stack:
        digest, children = stack[-1]
        child = next((each for each in children if each.digest not in done), None)
        if child is not None:
            stack.append((child.digest, iter(directories[child.digest].children)))
            continue
        stack.pop()
        if digest not in done:
            done.add(digest)
            yield directories[digest]
