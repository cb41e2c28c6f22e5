"""Believes nothing: Directories are hashed, and closures held together, before they go out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.closure import checked_closure
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.errors import CorruptData


@dataclass(eq=False)
class VerifyDirectoryService(DirectoryWrapper):
    """What is wrong in what comes from `inner` is `CorruptData`; a closure that ends too early is
    `Incomplete`."""

    async def get(self, digest: Digest) -> Directory | None:
        return verified(digest, await self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        found = await self.inner.get_many(digests)
        if len(found) != len(digests):
            raise CorruptData(f"{len(found)} answers came for {len(digests)} Directories")
        return [verified(digest, each) for digest, each in zip(digests, found, strict=True)]

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return checked_closure(self.inner, root)


def verified(digest: Digest, directory: Directory | None) -> Directory | None:
    """`directory`; raises `CorruptData` if it is another one than `digest` names."""
    if directory is not None and Digest.of(directory.wire) != digest:
        raise CorruptData(f"what came for Directory {digest} is {directory.digest}")
    return directory
