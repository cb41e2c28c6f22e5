"""A directory service that behaves as a test says: slow, dead, lying, breaking off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory import DirectoryService, MemoryDirectoryService
from tvixstore.errors import Unavailable


@dataclass(eq=False)
class Scripted(MemoryDirectoryService):
    """A closure breaks with `breaks_with` after `breaks_at` Directories, and waits for `go_on`
    after `waits_at`. What `lies` has for a digest is given instead; `streams` is what a closure of
    that root is made of instead. `fails` is raised by every call, `full` by those that write."""

    after: float = 0.0
    breaks_at: int | None = None
    breaks_with: Exception = field(default_factory=lambda: Unavailable("connection reset"))
    waits_at: int | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lies: dict[Digest, Directory] = field(default_factory=dict)
    streams: dict[Digest, list[Directory]] = field(default_factory=dict)
    roots_only: bool = False
    fails: Exception | None = None
    full: Exception | None = None
    calls: Counter[str] = field(default_factory=Counter)
    open_closures: int = 0
    # Set when a closure, or several Directories, were put.
    kept: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__()

    def hold(self, directories: Iterable[Directory]) -> None:
        self.directories |= {each.digest: each for each in directories}

    async def _called(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(self.after)
        if self.fails is not None:
            raise self.fails

    async def get(self, digest: Digest) -> Directory | None:
        await self._called("get")
        return self._one(digest)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        await self._called("get_many")
        return [self._one(digest) for digest in digests]

    def _one(self, digest: Digest) -> Directory | None:
        if self.roots_only:
            raise Unavailable("only roots can be fetched")
        return self.lies.get(digest, self.directories.get(digest))

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        await self._called("get_closure")
        self.open_closures += 1
        try:
            async with aclosing(self._closure(root)) as closure:
                place = 0
                async for directory in closure:
                    if place == self.waits_at:
                        await self.go_on.wait()
                    if place == self.breaks_at:
                        raise self.breaks_with
                    yield directory
                    place += 1
        finally:
            self.open_closures -= 1

    async def _closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        if root in self.streams:
            for directory in self.streams[root]:
                yield directory
            return
        inner = MemoryDirectoryService()
        inner.directories = self.directories | self.lies
        async with aclosing(inner.get_closure(root)) as closure:
            async for directory in closure:
                yield directory

    async def put(self, directory: Directory) -> Digest:
        await self.put_many([directory])
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self._called("put")
        if self.full is not None:
            raise self.full
        await super().put_many(directories)
        self.kept.set()


async def closure_of(service: DirectoryService, root: Digest) -> list[Directory]:
    async with aclosing(service.get_closure(root)) as closure:
        return [each async for each in closure]


async def closure_until_it_breaks(
    service: DirectoryService, root: Digest
) -> tuple[list[Directory], Exception]:
    """What came before the closure broke, and why it did; fails if it did not."""
    came: dict[Digest, Directory] = {}
    try:
        async with aclosing(service.get_closure(root)) as closure:
            async for each in closure:
                came[each.digest] = each
    except Exception as error:
        return list(came.values()), error
    raise AssertionError("the closure did not break")
