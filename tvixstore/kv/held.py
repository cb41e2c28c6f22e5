"""A stream that holds what it reads."""

from __future__ import annotations

from tvixstore.kv.holds import Hold
from tvixstore.streams import ByteStream


class HeldStream(ByteStream):
    """`inner`, with a hold that ends with it."""

    def __init__(self, inner: ByteStream, hold: Hold) -> None:
        self._inner = inner
        self._hold = hold

    async def __anext__(self) -> bytes:
        try:
            return await self._inner.__anext__()
        except StopAsyncIteration:
            self._hold.release()
            raise

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._hold.release()
