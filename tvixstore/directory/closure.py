"""Closures over any service that gets and puts single Directories: one walk, one putter."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvixstore.castore import ClosureBuilder, ClosureReader, Digest, Directory
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import Incomplete, InvalidData

# Directories asked for at once: enough to keep a backend busy, and bounded in memory.
_SLICE = 128


async def walk_closure(
    directories: DirectoryService, root: Digest
) -> AsyncGenerator[Directory, None]:
    """`DirectoryService.get_closure` by way of `get_many`, one slice of a level at a time."""
    top = await directories.get(root)
    if top is None:
        return
    reader = ClosureReader(root)
    reader.add(top)
    yield top
    level = [top]
    seen = {root}
    while level:
        wanted: list[Digest] = []
        for directory in level:
            for child in directory.children:
                if child.digest not in seen:
                    seen.add(child.digest)
                    wanted.append(child.digest)
        level = []
        for start in range(0, len(wanted), _SLICE):
            digests = wanted[start : start + _SLICE]
            found = await directories.get_many(digests)
            for digest, each in zip(digests, found, strict=True):
                if each is None:
                    raise Incomplete(f"Directory {digest} below {root} is missing", digest.raw)
                reader.add(each)
                yield each
                level.append(each)


class ClosurePutter(DirectoryPutter):
    """Holds a closure in memory until `close` has checked it, then puts it in one go."""

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._builder: ClosureBuilder | None = ClosureBuilder()
        self._root: Digest | None = None

    async def put(self, directory: Directory) -> None:
        if self._builder is None:
            raise InvalidData("this closure takes no more Directories: it was closed")
        self._builder.add(directory)

    async def close(self) -> Digest:
        if self._root is not None:
            return self._root
        if self._builder is None:
            raise InvalidData("this closure was aborted")
        closure = self._builder.finish()
        await self._directories.put_many(closure)
        self._builder = None
        self._root = closure[-1].digest
        return self._root

    async def abort(self) -> None:
        self._builder = None
