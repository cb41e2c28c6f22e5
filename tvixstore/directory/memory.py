"""Directories in a dict: for tests, and for compositions that keep nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from tvixstore.castore import Digest, Directory
from tvixstore.directory.closure import ClosurePutter, walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService


class MemoryDirectoryService(DirectoryService):
    def __init__(self) -> None:
        self.directories: dict[Digest, Directory] = {}

    def __repr__(self) -> str:
        return "memory"

    async def get(self, digest: Digest) -> Directory | None:
        return self.directories.get(digest)

    async def put(self, directory: Directory) -> Digest:
        self.directories[directory.digest] = directory
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        for directory in directories:
            self.directories[directory.digest] = directory

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self.get_many, root)

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)
