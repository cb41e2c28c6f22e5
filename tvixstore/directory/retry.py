"""Asks again when the answer could not be had."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import all_of, begin
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.policy.retry import Retry


@dataclass(eq=False)
class RetryDirectoryService(DirectoryWrapper):
    """Retries reads, of closures until the root is there, and writes of what is in memory: put
    twice, they are the same Directories. A closure that came or went in part is not repeated."""

    retry: Retry = field(default_factory=Retry)

    async def get(self, digest: Digest) -> Directory | None:
        return await self.retry.run(lambda: self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self.retry.run(lambda: self.inner.get_many(digests))

    async def put(self, directory: Directory) -> Digest:
        return await self.retry.run(lambda: self.inner.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.retry.run(lambda: self.inner.put_many(directories))

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return all_of(lambda: self.retry.run(lambda: begin(self.inner, root)))

    async def put_closure(self) -> DirectoryPutter:
        return await self.retry.run(self.inner.put_closure)
