"""Closures over any service that gets and puts single Directories: one walk, one putter."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvixstore.castore import ClosureBuilder, ClosureReader, Digest, Directory
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData

# Directories asked for at once: enough to keep a backend busy, and bounded in memory.
_SLICE = 128


async def walk_closure(
    directories: DirectoryService, root: Digest
) -> AsyncGenerator[Directory, None]:
    """`DirectoryService.get_closure` by way of `get_many`, a slice of a level at a time."""
    reader = ClosureReader(root)
    while wanted := reader.missing():
        for start in range(0, len(wanted), _SLICE):
            digests = wanted[start : start + _SLICE]
            for digest, directory in zip(digests, await directories.get_many(digests), strict=True):
                if directory is None:
                    if digest == root:
                        return
                    raise Incomplete(f"Directory {digest} below {root} is missing", digest.raw)
                try:
                    reader.feed(directory)
                except InvalidData as error:
                    raise CorruptData(f"closure of {root} as stored: {error}") from error
                yield directory


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
