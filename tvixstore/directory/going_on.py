"""A closure that one of several members begins, and all of them bring to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory.begun import BegunClosure
from tvixstore.directory.closure import feed, walk_closure
from tvixstore.errors import CorruptData, Incomplete, StoreError
from tvixstore.log import Logger

log = Logger("tvixstore.directory.going_on")


@dataclass(eq=False)
class GoingOn:
    """The closure of `root`, as far as the member called `name` brings it, who has `begun`.

    Where he fails, of which `failed` hears, or lacks something, the rest is had by `get_many`, in
    the same order.
    """

    root: Digest
    name: str
    begun: BegunClosure
    get_many: Callable[[Sequence[Digest]], Awaitable[list[Directory | None]]]
    failed: Callable[[], None]

    async def closure(self) -> AsyncGenerator[Directory, None]:
        """Raises `Incomplete` where nobody has what is missing; closes `begun` when it ends."""
        reader = ClosureReader(self.root)
        async with aclosing(self.begun):
            directory: Directory | None = self.begun.root
            while directory is not None:
                feed(reader, directory, self.root)
                yield directory
                directory = await self._next(reader)
        if reader.missing():
            async with aclosing(walk_closure(self.get_many, self.root, reader)) as rest:
                async for directory in rest:
                    yield directory

    async def _next(self, reader: ClosureReader) -> Directory | None:
        """`None` if nothing more of this closure comes, for whatever reason."""
        reason: Exception
        try:
            directory = await anext(self.begun.rest, None)
        except (StoreError, OSError) as error:
            reason = error
        else:
            if directory is None or reader.is_missing(directory.digest):
                return directory
            reason = CorruptData(f"Directory {directory.digest} is not of this closure, or again")
        if not isinstance(reason, Incomplete):
            self.failed()
        log.info("closure.broke_off", node=self.name, key=self.root, reason=reason)
        return None
