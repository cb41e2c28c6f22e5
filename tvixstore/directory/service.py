"""The directory service: Directories by the BLAKE3 digest of their canonical wire form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Self

from tvixstore.castore import Digest, Directory


class DirectoryPutter(ABC):
    """Takes one closure, children before parents; leaving without `close` aborts."""

    @abstractmethod
    async def put(self, directory: Directory) -> None:
        """The next Directory. Raises `InvalidData` if a child has not come before it."""

    @abstractmethod
    async def close(self) -> Digest:
        """Commits the closure, durably; its root is the last Directory put.

        Raises `InvalidData` unless all of it hangs on that root, with sizes that follow one of the
        two rules throughout. Nothing is stored then.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Forgets what was put. Does nothing after `close`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.abort()


class DirectoryService(ABC):
    """Directories by digest, self-verifying."""

    @abstractmethod
    async def get(self, digest: Digest) -> Directory | None:
        """That one Directory, or `None` if it is absent."""

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        """Several Directories, in the order asked for."""
        return [await self.get(digest) for digest in digests]

    @abstractmethod
    async def put(self, directory: Directory) -> Digest:
        """Stores one Directory, durably; its children need not be there yet."""

    @abstractmethod
    async def put_many(self, directories: Sequence[Directory]) -> None:
        """Stores several Directories, durable when it returns, in the order given."""

    @abstractmethod
    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        """The root and everything below: parents before children, breadth first, each once.

        Each is verified against the parent that named it. An absent root is an empty closure; a
        missing descendant raises `Incomplete`. Whoever stops early closes the generator.
        """

    @abstractmethod
    async def put_closure(self) -> DirectoryPutter:
        """A putter for one closure."""
