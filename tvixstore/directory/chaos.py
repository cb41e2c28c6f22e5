"""Lets things go wrong on purpose, for drills and tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory, SymlinkNode
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.errors import Unavailable
from tvixstore.policy.chaos import Chaos, Outcome, stall


@dataclass(eq=False)
class ChaosDirectoryService(DirectoryWrapper):
    """What `chaos` says becomes of each call of `inner`. Corrupt is another Directory."""

    chaos: Chaos

    async def get(self, digest: Digest) -> Directory | None:
        return (await self.get_many([digest]))[0]

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        outcome = await self.chaos.meet("absent", "corrupt")
        if outcome.kind == "absent":
            return [None] * len(digests)
        found = await self.inner.get_many(digests)
        if outcome.kind == "corrupt":
            return [None if each is None else _another(each) for each in found]
        return found

    async def put(self, directory: Directory) -> Digest:
        return await self.chaos.write(lambda: self.inner.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.chaos.write(lambda: self.inner.put_many(directories))

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        outcome = await self.chaos.meet("absent", "truncate", "corrupt", "stall", "disconnect")
        if outcome.kind == "absent":
            return
        number, struck = 0, outcome.kind == "ok"
        # One that was cut before its root would be absent, which is another kind.
        at = max(1, outcome.at) if outcome.kind == "truncate" else outcome.at
        async with aclosing(self.inner.get_closure(root)) as closure:
            upcoming = await anext(closure, None)
            while (directory := upcoming) is not None:
                upcoming = await anext(closure, None)
                if not struck and (number == at or upcoming is None):
                    struck = True
                    if (directory := await _struck(directory, outcome)) is None:
                        if number == 0:
                            raise Unavailable("chaos: truncate")
                        return
                yield directory
                number += 1

    async def put_closure(self) -> DirectoryPutter:
        return _ChaoticPutter(
            await self.chaos.write(self.inner.put_closure),
            self.chaos,
        )


async def _struck(directory: Directory, outcome: Outcome) -> Directory | None:
    """What comes in place of `directory`; `None` is the end."""
    if outcome.kind == "corrupt":
        return _another(directory)
    if outcome.kind == "stall":
        await stall()
    if outcome.kind == "truncate":
        return None
    raise Unavailable("chaos: disconnected")


def _another(directory: Directory) -> Directory:
    """A Directory that is right in itself, and not this one."""
    return Directory.of([(b"chaos", SymlinkNode(directory.digest.raw.hex().encode()))])


@dataclass(eq=False)
class _ChaoticPutter(DirectoryPutter):
    inner: DirectoryPutter
    chaos: Chaos

    async def put(self, directory: Directory) -> None:
        await self.inner.put(directory)

    async def close(self) -> Digest:
        return await self.chaos.write(self.inner.close)

    async def abort(self) -> None:
        await self.inner.abort()
