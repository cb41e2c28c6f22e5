"""Counts what a node of the composition is asked, and how it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import all_of, begin
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.metrics import NodeMeter
from tvixstore.policy.observe import observed


@dataclass(eq=False)
class MeteredDirectoryService(DirectoryWrapper):
    """Reports each call of `inner` to `meter`; of a closure, the wait for its root."""

    meter: NodeMeter = field(repr=False)

    async def get(self, digest: Digest) -> Directory | None:
        return await observed(self.meter, "get", self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await observed(
            self.meter,
            "get_many",
            self.inner.get_many(digests),
            lambda found: all(each is None for each in found),
        )

    async def put(self, directory: Directory) -> Digest:
        return await observed(self.meter, "put", self.inner.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        # Nothing is what it answers when all is well.
        putting = self.inner.put_many(directories)
        await observed(self.meter, "put_many", putting, lambda _: False)

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return all_of(lambda: observed(self.meter, "get_closure", begin(self.inner, root)))

    async def put_closure(self) -> DirectoryPutter:
        return await observed(self.meter, "put_closure", self.inner.put_closure())
