"""Putters of which somebody wants to know what they put."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryPutter


@dataclass(eq=False)
class WatchedPutter(DirectoryPutter):
    """Tells `on_commit` of the digests that `close` put; also where it failed, as they may be
    there all the same."""

    inner: DirectoryPutter
    on_commit: Callable[[Sequence[Digest]], object]
    _put: list[Digest] = field(default_factory=list, init=False, repr=False)

    async def put(self, directory: Directory) -> None:
        await self.inner.put(directory)
        self._put.append(directory.digest)

    async def close(self) -> Digest:
        try:
            return await self.inner.close()
        finally:
            self.on_commit(self._put)

    async def abort(self) -> None:
        await self.inner.abort()
