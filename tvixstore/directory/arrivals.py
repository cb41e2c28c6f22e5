"""Makes known what is put, to whoever remembers that it was absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.watched import WatchedPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.policy.negative import Arrivals


@dataclass(eq=False)
class AnnouncingDirectoryService(DirectoryWrapper):
    """Has `arrivals` tell everybody of what is put into `inner`, or may have been."""

    arrivals: Arrivals[Digest]

    async def put(self, directory: Directory) -> Digest:
        try:
            return await self.inner.put(directory)
        finally:
            # Also where it failed: it may have arrived all the same.
            self.arrivals.announce([directory.digest])

    async def put_many(self, directories: Sequence[Directory]) -> None:
        try:
            await self.inner.put_many(directories)
        finally:
            self.arrivals.announce(directory.digest for directory in directories)

    async def put_closure(self) -> DirectoryPutter:
        return WatchedPutter(await self.inner.put_closure(), self.arrivals.announce)
