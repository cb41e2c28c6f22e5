"""Streams of messages at the pace of whoever reads or writes them here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from tvixstore.errors import Unavailable

if TYPE_CHECKING:
    from tvixstore.rpc.client.call import Replies, Sending
    from tvixstore.rpc.client.peer import Peer
    from tvixstore.rpc.methods import Method

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Served(Generic[Reply]):
    """Replies as they come; an async iterator that whoever stops reading closes."""

    def __init__(
        self, peer: Peer, replies: Replies[Reply], release: Callable[[], Awaitable[None]]
    ) -> None:
        self._peer = peer
        self._replies = replies
        self._release: Callable[[], Awaitable[None]] | None = release

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        if self._release is None:
            raise StopAsyncIteration
        with self._peer.troubles():
            if not await self._replies.ready(self._peer.timeout):
                raise StopAsyncIteration
        return self._replies.take()

    async def aclose(self) -> None:
        """Leaves; the peer is told, if it was not done."""
        release, self._release = self._release, None
        if release is not None:
            try:
                await self._replies.aclose()
            finally:
                await release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Sent(Generic[Request, Reply]):
    """Requests on their way; ends with `finish`, or is left with `aclose`."""

    def __init__(
        self,
        peer: Peer,
        method: Method[Request, Reply],
        sending: Sending[Request, Reply],
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self._peer = peer
        self._method: Method[Any, Any] = method
        self._sending = sending
        self._release: Callable[[], Awaitable[None]] | None = release

    async def send(self, message: Request) -> None:
        """Sends the next; it waits until the peer takes it. Raises why it does not want it."""
        self._check_open()
        with self._peer.troubles(self._method):
            await self._sending.send(message, self._peer.timeout)

    async def finish(self) -> Reply:
        """The reply to all that was sent, which may take its time."""
        self._check_open()
        try:
            with self._peer.troubles(self._method):
                return await self._sending.finish()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Leaves; the peer forgets what was sent, if it was not finished."""
        release, self._release = self._release, None
        if release is not None:
            try:
                await self._sending.abort()
            finally:
                await release()

    def _check_open(self) -> None:
        if self._release is None:
            raise Unavailable(f"{self._peer.name}: this call is over")
