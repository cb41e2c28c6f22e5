"""Writers of which somebody wants to know how they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tvixstore.blob.service import BlobWriter
from tvixstore.castore import Digest
from tvixstore.errors import StoreError


async def nobody(_: Digest) -> None:
    """Nobody wants to know."""


@dataclass(eq=False)
class WatchedWriter(BlobWriter):
    """Tells `on_break` of what a write fails with, and `on_commit` of the digest that was kept,
    before whoever wrote it hears of it; `on_doubt` where it is not known whether it was kept."""

    inner: BlobWriter
    on_break: Callable[[Exception], None] = lambda _: None
    on_commit: Callable[[Digest], Awaitable[None]] = nobody
    on_doubt: Callable[[], object] = lambda: None

    async def write(self, data: bytes) -> None:
        try:
            await self.inner.write(data)
        except (StoreError, OSError) as error:
            self.on_break(error)
            raise

    async def close(self) -> Digest:
        try:
            digest = await self.inner.close()
        except BaseException as error:
            # The answer may have been lost, or the caller may have left before it came.
            self.on_doubt()
            if isinstance(error, StoreError | OSError):
                self.on_break(error)
            raise
        await self.on_commit(digest)
        return digest

    async def abort(self) -> None:
        await self.inner.abort()
