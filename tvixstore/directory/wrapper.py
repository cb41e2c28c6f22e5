"""What all wrappers of one directory service have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryPutter, DirectoryService


@dataclass(eq=False)
class DirectoryWrapper(DirectoryService):
    """Passes every call on to `inner`; a policy overrides those that it is about."""

    inner: DirectoryService

    async def get(self, digest: Digest) -> Directory | None:
        return await self.inner.get(digest)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self.inner.get_many(digests)

    async def put(self, directory: Directory) -> Digest:
        return await self.inner.put(directory)

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.inner.put_many(directories)

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return self.inner.get_closure(root)

    async def put_closure(self) -> DirectoryPutter:
        return await self.inner.put_closure()
