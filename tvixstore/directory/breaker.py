"""Leaves a service alone that keeps failing, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import begin
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.errors import StoreError
from tvixstore.policy.breaker import Breaker


@dataclass(eq=False)
class BreakerDirectoryService(DirectoryWrapper):
    """Has every call pass through `breaker`, which also hears of closures that break off."""

    breaker: Breaker = field(default_factory=Breaker)

    async def get(self, digest: Digest) -> Directory | None:
        return await self.breaker.run(lambda: self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self.breaker.run(lambda: self.inner.get_many(digests))

    async def put(self, directory: Directory) -> Digest:
        return await self.breaker.run(lambda: self.inner.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.breaker.run(lambda: self.inner.put_many(directories), download=True)

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        begun = await self.breaker.run(lambda: begin(self.inner, root), download=True)
        if begun is None:
            return
        try:
            yield begun.root
            while (directory := await self._next(begun.rest)) is not None:
                yield directory
        finally:
            await begun.aclose()

    async def put_closure(self) -> DirectoryPutter:
        return await self.breaker.run(self.inner.put_closure)

    async def _next(self, rest: AsyncGenerator[Directory, None]) -> Directory | None:
        try:
            return await anext(rest, None)
        except (StoreError, OSError) as error:
            self.breaker.broke(error)
            raise
