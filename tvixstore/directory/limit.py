"""Asks no more of a store than it should be asked: calls at a time, bytes a second."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.policy.limit import Limit, using


@dataclass(eq=False)
class LimitDirectoryService(DirectoryWrapper):
    """Over a store itself, and nothing that asks other services: calls and closures each hold a
    permit of `limit`, and the wire form of what goes in and out counts against its rate."""

    limit: Limit

    async def get(self, digest: Digest) -> Directory | None:
        async with self.limit.held():
            directory = await self.inner.get(digest)
            await self._pay(directory)
            return directory

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        async with self.limit.held():
            found = await self.inner.get_many(digests)
            await self._pay(*found)
            return found

    async def put(self, directory: Directory) -> Digest:
        async with self.limit.held():
            await self._pay(directory)
            return await self.inner.put(directory)

    async def put_many(self, directories: Sequence[Directory]) -> None:
        async with self.limit.held():
            await self._pay(*directories)
            await self.inner.put_many(directories)

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        permit = await self.limit.acquire()
        try:
            async with aclosing(self.inner.get_closure(root)) as closure:
                while True:
                    with using(permit):
                        directory = await anext(closure, None)
                        if directory is None:
                            return
                        await self._pay(directory)
                    yield directory
        finally:
            if permit is not None:
                permit.release()

    async def put_closure(self) -> DirectoryPutter:
        return _LimitedPutter(await self.inner.put_closure(), self)

    async def _pay(self, *directories: Directory | None) -> None:
        await self.limit.pay(sum(len(each.wire) for each in directories if each is not None))


@dataclass(eq=False)
class _LimitedPutter(DirectoryPutter):
    """Holds a permit during each of its calls: what it collects in between is here."""

    inner: DirectoryPutter
    service: LimitDirectoryService

    async def put(self, directory: Directory) -> None:
        async with self.service.limit.held():
            await self.service._pay(directory)
            await self.inner.put(directory)

    async def close(self) -> Digest:
        async with self.service.limit.held():
            return await self.inner.close()

    async def abort(self) -> None:
        await self.inner.abort()
