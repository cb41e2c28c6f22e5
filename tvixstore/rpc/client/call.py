"""Calls: each runs in a task of its own, and in no other way.

When grpclib loses a connection it cancels the tasks that wait for it, and never takes that back: in
whoever's task it happened, the next cancel scope would break. So nothing of grpclib is awaited in
a caller's task, and none of its timeouts are used, which cancel in the same way.

grpclib also buffers whatever a message's prefix announces, up to 4 GiB; here the prefix is read
first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from grpclib.client import Stream
from grpclib.exceptions import StreamTerminatedError
from multidict import MultiDict

from tvixstore.errors import CorruptData, InvalidData, Unavailable, Unsupported
from tvixstore.policy.tasks import end
from tvixstore.rpc.codec import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from grpclib.client import Channel

    from tvixstore.pools import Pools
    from tvixstore.rpc.methods import Method

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Result = TypeVar("Result")

_PREFIX_BYTES: Final = 5
# Messages of this size take more than a millisecond to decode, of those that are costly at all.
_LARGE: Final = 32 << 10


class Timeout(Exception):
    """The call took longer than it may."""


class Unimplemented(Unsupported):
    """The peer does not know the call, by any name that it may have."""


async def in_own_task(work: Coroutine[Any, Any, Result], seconds: float | None) -> Result:
    """Runs `work`, which awaits grpclib, where that can do no harm. Raises `Timeout`.

    The caller being cancelled ends the call: it is over when this returns or raises.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise Timeout
    except BaseException:
        # Also if it is over by now: its error is nobody's any more.
        await end([task])
        raise
    return result_of(task)


def result_of(task: asyncio.Task[Result]) -> Result:
    """What a task that is over came to, other than being cancelled by grpclib."""
    if task.cancelled():
        raise StreamTerminatedError("the connection was lost")
    return task.result()


def open_call(
    channel: Channel,
    method: Method[Any, Any],
    path: str,
    pools: Pools | None = None,
    authorization: str | None = None,
) -> Exchange:
    """A call of `method` by that name, not begun. Large replies are decoded in `pools`."""
    # grpclib says that messages are classes; its codec, which is ours, makes of them what it will.
    sent: Any = method.request
    received: Any = method.reply
    metadata: Any = MultiDict()
    if authorization is not None:
        metadata["authorization"] = authorization
    exchange = Exchange(
        channel,
        path,
        metadata,
        method.cardinality,
        sent,
        received,
        codec=channel._codec,
        status_details_codec=None,
        dispatch=channel.__dispatch__,
    )
    exchange.pools = pools if method.reply.costly else None
    return exchange


class Exchange(Stream[Any, Any]):
    """grpclib's call, other than that a message's length is known before it is read."""

    pools: Pools | None = None

    def _raise_for_content_type(self, headers_map: dict[str, str]) -> None:
        # A server of grpclib leaves it out where it says that it does not know the call.
        if "grpc-status" not in headers_map:
            super()._raise_for_content_type(headers_map)

    async def recv_message(self) -> Any:
        """The next reply, `None` after the last one. Raises `CorruptData` for an invalid one."""
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        with self._wrapper:
            try:
                prefix = await self._stream.recv_data(_PREFIX_BYTES)
                if not prefix:
                    return None
                length = int.from_bytes(prefix[1:], "big")
                if prefix[0] or length > MAX_MESSAGE_BYTES:
                    raise CorruptData(_unreadable(prefix[0], length))
                data = await self._stream.recv_data(length)
            except AssertionError as error:
                # So grpclib says that the stream has ended in the middle.
                raise StreamTerminatedError("the stream ends within a message") from error
        try:
            if self.pools is not None and length >= _LARGE:
                return await self.pools.cpu.run(self._recv_type.decode, data)
            return self._recv_type.decode(data)
        except InvalidData as error:
            raise CorruptData(f"what came is not valid: {error}") from error

    async def ask(self, request: Any) -> Any:
        """The only reply to the only request."""
        async with self:
            await self.send_message(request, end=True)
            return await self.only_reply()

    async def tell(self, requests: Sequence[Any]) -> Any:
        """The only reply to requests that are all there."""
        async with self:
            await self.send_request()
            for request in requests:
                await self.send_message(request)
            await self.end()
            return await self.only_reply()

    async def gather(self, request: Any, most: int) -> list[Any]:
        """All replies to the only request; raises `CorruptData` if they are more than `most`
        (bytes, or else messages)."""
        replies = []
        size = 0
        async with self:
            await self.send_message(request, end=True)
            while (reply := await self.recv_message()) is not None:
                replies.append(reply)
                size += len(reply) if isinstance(reply, bytes) else 1
                if size > most:
                    raise CorruptData(f"more came than the {most} asked for")
        return replies

    async def only_reply(self) -> Any:
        reply = await self.recv_message()
        if reply is None:
            # Raises the status, if there is one; OK is none for a reply that is missing.
            await self.recv_trailing_metadata()
            raise CorruptData("the call ends well, and without its reply")
        return reply


class Replies(Generic[Reply]):
    """A stream of replies at the pace of its reader; whoever stops reading closes it.

    Its task owns the call and reads at most `ahead` replies ahead. Leaving early cancels the call.
    """

    def __init__(self, exchange: Exchange, request: Any, ahead: int) -> None:
        self._messages: deque[Reply] = deque()
        self._ahead = ahead
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._run(exchange, request))
        self._task.add_done_callback(lambda _: self._news.set())

    async def ready(self, seconds: float) -> bool:
        """Waits for the next reply; `False` if there is none. Raises `Timeout`, or what broke."""
        while not self._messages:
            if self._task.done():
                result_of(self._task)
                return False
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                raise Timeout from None
        return True

    def take(self) -> Reply:
        """The next reply, once `ready`."""
        message = self._messages.popleft()
        if len(self._messages) < self._ahead:
            self._room.set()
        return message

    async def aclose(self) -> None:
        self._messages.clear()
        await end([self._task])

    async def _run(self, exchange: Exchange, request: Any) -> None:
        async with exchange:
            await exchange.send_message(request, end=True)
            while (message := await exchange.recv_message()) is not None:
                self._messages.append(message)
                self._news.set()
                while len(self._messages) >= self._ahead:
                    self._room.clear()
                    await self._room.wait()


class Sending(Generic[Request, Reply]):
    """A stream of requests, with one reply at its end. Its task owns the call."""

    def __init__(self, exchange: Exchange) -> None:
        # The message on its way, if any: one is enough to keep the sender busy.
        self._message: Request | None = None
        self._ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[Reply] = asyncio.create_task(self._run(exchange))
        self._task.add_done_callback(lambda _: self._room.set())

    async def send(self, message: Request, seconds: float) -> None:
        """Hands over the next request. Raises `Timeout`, or why the peer wants no more."""
        while self._message is not None and not self._task.done():
            self._room.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._room.wait()
            except TimeoutError:
                raise Timeout from None
        if self._task.done():
            result_of(self._task)
            raise Unavailable("the peer answered before all of it was sent")
        self._message = message
        self._news.set()

    async def finish(self) -> Reply:
        """Says that there are no more requests; the reply to them."""
        self._ended = True
        self._news.set()
        await asyncio.wait([self._task])
        return result_of(self._task)

    async def abort(self) -> None:
        await end([self._task])

    async def _run(self, exchange: Exchange) -> Reply:
        async with exchange:
            await exchange.send_request()
            while True:
                while self._message is None and not self._ended:
                    self._news.clear()
                    await self._news.wait()
                if self._message is None:
                    break
                message, self._message = self._message, None
                self._room.set()
                await exchange.send_message(message)
            await exchange.end()
            reply: Reply = await exchange.only_reply()
            return reply


def _unreadable(compressed: int, length: int) -> str:
    if compressed:
        return "a message is compressed, which nobody asked for"
    return f"a message of {length} bytes is announced, above the limit of {MAX_MESSAGE_BYTES}"
