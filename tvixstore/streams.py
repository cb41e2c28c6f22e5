"""Byte streams: what every `open_read` and `open_nar` hands out.

A stream is an async iterator of non-empty `bytes` that somebody must close. Whoever stops reading
closes it, so the idiom is `async with stream: async for part in stream: …`. No cancel scope and no
task group may span the `yield` of a generator behind a stream (DESIGN: they break in whoever
happens to close it); a stream that needs helpers owns plain tasks and ends them in `aclose`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Self

from tvixstore.errors import StoreError


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

    async def __aexit__(self, *_: object) -> None:
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


class StartedStream(ByteStream):
    """`inner`, whose first piece came already, or whose end: `start` waits for that."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self._first: bytes | None = None

    async def start(self) -> None:
        """Waits for the first piece; closes `inner` if that fails."""
        try:
            self._first = await anext(self._inner, None)
        except BaseException:
            await self._inner.aclose()
            raise

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._inner.__anext__()

    async def aclose(self) -> None:
        self._first = None
        await self._inner.aclose()


async def started(opening: Awaitable[ByteStream | None]) -> ByteStream | None:
    """The stream that `opening` gives, once its first piece is there."""
    stream = await opening
    if stream is None:
        return None
    begun = StartedStream(stream)
    await begun.start()
    return begun


class WatchedStream(ByteStream):
    """Tells `on_break` when the stream cannot go on."""

    def __init__(self, stream: ByteStream, on_break: Callable[[Exception], None]) -> None:
        self._stream = stream
        self._on_break = on_break

    async def __anext__(self) -> bytes:
        try:
            return await self._stream.__anext__()
        except (StoreError, OSError) as error:
            self._on_break(error)
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()
