"""Gives up waiting for an answer; never on a closure that has begun."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import all_of, begin
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.policy.timeout import Timeout


@dataclass(eq=False)
class TimeoutDirectoryService(DirectoryWrapper):
    """Bounds reads, and the wait for a closure's root, by `timeout`; nothing that is written."""

    timeout: Timeout = field(default_factory=Timeout)

    async def get(self, digest: Digest) -> Directory | None:
        return await self.timeout.run(lambda: self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self.timeout.run(lambda: self.inner.get_many(digests))

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return all_of(lambda: self.timeout.run(lambda: begin(self.inner, root)))
