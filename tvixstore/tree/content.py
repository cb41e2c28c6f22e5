"""The two services that hold the content of store paths, as a pair."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvixstore.castore import DirectoryNode, FileNode, Node

if TYPE_CHECKING:
    # Whoever only hashes a tree has no store to load.
    from tvixstore.blob import BlobService
    from tvixstore.directory import DirectoryService
    from tvixstore.kv import Hold, Holds


@dataclass(frozen=True, slots=True)
class Content:
    """Where the blobs and the Directories of a tree are read from, or written to.

    `holds` keep what is in use from being evicted; without them nothing is.
    """

    blobs: BlobService
    directories: DirectoryService
    holds: Holds | None = field(default=None, repr=False)

    async def hold(self, node: Node) -> Hold | None:
        """Holds the whole tree of `node`, as far as it is here, until that is released."""
        if self.holds is None or (key := _key_of(node)) is None:
            return None
        return await self.holds.hold(key)

    @asynccontextmanager
    async def keeping(self, node: Node) -> AsyncIterator[None]:
        """Holds the whole tree of `node` meanwhile."""
        hold = await self.hold(node)
        try:
            yield
        finally:
            if hold is not None:
                hold.release()

    async def has(self, node: Node) -> bool:
        """Whether the root of that tree is here."""
        match node:
            case DirectoryNode(digest):
                return await self.directories.get(digest) is not None
            case FileNode(digest):
                return await self.blobs.has(digest)
        return True

    async def take(self, node: Node) -> None:
        """The same until the session ends; outside of one, for ten minutes."""
        if self.holds is not None and (key := _key_of(node)) is not None:
            await self.holds.take([key])

    def session(self) -> AbstractContextManager[None]:
        """For whoever writes a tree: what he writes, or finds, stays until the session ends.

        By then something has to refer to it.
        """
        return nullcontext() if self.holds is None else self.holds.session()


def _key_of(node: Node) -> bytes | None:
    from tvixstore.kv import key_of

    return key_of(node)
