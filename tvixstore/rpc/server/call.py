"""One call that came in: its messages, read by us so that a limit holds before there is a buffer.

grpclib buffers whatever a message's prefix announces, up to 4 GiB. Messages that go out are small
mostly (Directories, path infos), and each costs frames of its own, so they are gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from grpclib.const import Status
from h2.exceptions import ProtocolError

from tvixstore.errors import InvalidData
from tvixstore.explain import Request as Explained
from tvixstore.rpc.messages import Form
from tvixstore.rpc.server.front import Limits
from tvixstore.rpc.server.refusals import Refusal

if TYPE_CHECKING:
    from grpclib.server import Stream

    from tvixstore.pools import Pools

Request = TypeVar("Request")
Reply = TypeVar("Reply")

_PREFIX_BYTES: Final = 5
# What a message costs beyond its bytes, so that empty ones have a limit too.
_OVERHEAD_BYTES: Final = 128
# Messages of this size take more than a millisecond to decode.
_LARGE: Final = 32 * 1024
# What is gathered goes out when it is as much, or as old (in seconds).
_GATHERED: Final = 64 * 1024
_AGE: Final = 0.005


class Call(Generic[Request, Reply]):
    """Its messages come and go as values.

    `budget` bounds the bytes of all requests together; `gathered` replies may wait for more of
    them, which is for those that nobody waits for one by one.
    """

    def __init__(
        self,
        stream: Stream[Any, Any],
        request: Form[Request],
        reply: Form[Reply],
        limits: Limits,
        pools: Pools,
        *,
        budget: int | None = None,
        gathered: bool = False,
    ) -> None:
        self.sent = 0
        # What whoever calls says that he is.
        self.authorization = _text(stream.metadata, "authorization")
        # It can be told of afterwards.
        self.told: Explained | None = None
        # Why it is cancelled, if that is not the client's doing or the server's end.
        self.given_up: Refusal | None = None
        self._stream = stream
        self._request = request
        self._reply = reply
        self._limits = limits
        self._pools = pools
        self._budget = budget
        self._gathered = gathered
        self._received = 0
        self._now = asyncio.get_running_loop().time
        self._parts: list[bytes] = []
        self._held = 0
        self._due = 0.0
        # What the client has to do next, and since when; `None` while it is our turn.
        self._waits_for: str | None = None
        self._waits_since = 0.0

    async def receive(self) -> Request:
        """The only request."""
        if (data := await self._take_message()) is None:
            raise Refusal(Status.INVALID_ARGUMENT, "no request came")
        return await self._decode(data)

    async def requests(self) -> AsyncGenerator[Request, None]:
        """All requests, as they come."""
        while (data := await self._take_message()) is not None:
            try:
                request = await self._decode(data)
            except InvalidData as error:
                raise InvalidData(f"message {self._received}: {error}") from error
            self._received += 1
            yield request

    async def send(self, value: Reply) -> None:
        """The next reply; a gathered one may wait for the next, or for `flush`."""
        data = self._reply.encode(value)
        if len(data) > self._limits.message_bytes:
            raise Refusal(
                Status.RESOURCE_EXHAUSTED,
                f"the answer is a {self._reply.name} of {len(data)} bytes, "
                f"above the limit of {self._limits.message_bytes}",
            )
        self._parts += (b"\0" + len(data).to_bytes(4, "big"), data)
        self._held += _PREFIX_BYTES + len(data)
        # The first one goes out at once: it may be the only one that its receiver wants.
        if not self._gathered or self._held >= _GATHERED or self._now() >= self._due:
            await self.flush()
            self._due = self._now() + _AGE

    async def flush(self) -> None:
        """Sends what was gathered."""
        if not self._parts:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        self._wait("took")
        try:
            if not self._stream._send_initial_metadata_done:
                await self._stream.send_initial_metadata()
            await self._stream._stream.send_data(data)
        except (ProtocolError, ConnectionError) as error:
            # The stream is closed already: the client has just left, and nobody reads this.
            raise Refusal(Status.CANCELLED, str(error)) from error
        except RuntimeError as error:
            # What uvloop says of a connection that was lost a moment ago, to whoever writes on.
            if not self._stream._stream._transport.is_closing():
                raise
            raise Refusal(Status.CANCELLED, str(error)) from error
        self._waits_for = None
        self._stream._send_message_done = True
        self.sent += len(data)

    def give_up_if_stalled(self) -> bool:
        """Whether the client has kept it waiting for too long; then `given_up` says so."""
        limit = self._limits.stall
        if self._waits_for is None or self._now() - self._waits_since < limit:
            return False
        self.given_up = Refusal(
            Status.DEADLINE_EXCEEDED, f"the client {self._waits_for} nothing for {limit:g} s"
        )
        return True

    async def _take_message(self) -> bytes | None:
        prefix = await self._take(_PREFIX_BYTES)
        if not prefix:
            return None
        if prefix[0]:
            raise Refusal(Status.UNIMPLEMENTED, "compressed messages are not read here")
        length = int.from_bytes(prefix[1:], "big")
        self._allow(length)
        data = await self._take(length)
        if len(data) != length:
            raise self._truncated()
        return data

    def _allow(self, length: int) -> None:
        limit = self._limits.message_bytes
        if length > limit:
            raise Refusal(
                Status.RESOURCE_EXHAUSTED,
                f"message {self._received} is {length} bytes long, above the limit of {limit}",
            )
        if self._budget is not None:
            self._budget -= length + _OVERHEAD_BYTES
            if self._budget < 0:
                raise Refusal(
                    Status.RESOURCE_EXHAUSTED,
                    f"what is put is too much at once, from message {self._received} on",
                )

    async def _take(self, size: int) -> bytes:
        """So many bytes, or none at the end."""
        self._wait("sent")
        try:
            data: bytes = await self._stream._stream.recv_data(size)
        except AssertionError:
            # So grpclib says that the stream has ended.
            raise self._truncated() from None
        self._waits_for = None
        return data

    def _wait(self, what: str) -> None:
        """From now on the client is waited for, until it does `what`."""
        self._waits_for = what
        self._waits_since = self._now()

    async def _decode(self, data: bytes) -> Request:
        if len(data) >= _LARGE and self._request.costly:
            return await self._pools.cpu.run(self._request.decode, data)
        return self._request.decode(data)

    def _truncated(self) -> InvalidData:
        return InvalidData(f"the stream ends within message {self._received}")


def _text(metadata: Mapping[str, str | bytes] | None, key: str) -> str | None:
    value = None if metadata is None else metadata.get(key)
    return value if isinstance(value, str) else None
