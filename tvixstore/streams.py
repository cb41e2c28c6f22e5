"""Byte streams: what every `open_read` and `open_nar` hands out.

A stream is an async iterator of non-empty `bytes` that somebody must close. Whoever stops reading
closes it, so the idiom is `async with stream: async for part in stream: …`. No cancel scope and no
task group may span the `yield` of a generator behind a stream (DESIGN: they break in whoever
happens to close it); a stream that needs helpers owns plain tasks and ends them in `aclose`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class ByteStream(ABC):
    """An async iterator of `bytes` with an owner who closes it."""

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next piece, never empty. Raises a `StoreError` where the data cannot go on."""

    @abstractmethod
    async def aclose(self) -> None:
        """Lets go of everything behind the stream. May be called at any time, and twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def read_all(self) -> bytes:
        """The rest of the stream in one piece; closes it."""
        async with self:
            return b"".join([part async for part in self])


class BytesStream(ByteStream):
    """Pieces that are in memory already."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = [part for part in reversed(parts) if part]

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()

    async def aclose(self) -> None:
        self._parts.clear()
