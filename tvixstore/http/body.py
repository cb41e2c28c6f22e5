"""Streams onto the wire: opened before the headers go out, counted, in pieces worth a system call.

A body that cannot be completed must break the connection. So what a stream delivers is counted
against the length that the headers promised, and what completes the body is held back until the
stream has ended well. Where they promise none, it is the last chunk that does not go out before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tvixstore.errors import CorruptData
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from aiohttp import web

_PIECE = 128 * 1024
# Seconds that bytes may wait for more when the stream is slow.
_AGE = 0.02


class _Primed(ByteStream):
    def __init__(self, first: bytes, rest: ByteStream) -> None:
        self._first: bytes | None = first
        self._rest = rest

    async def __anext__(self) -> bytes:
        if self._first is None:
            return await self._rest.__anext__()
        first, self._first = self._first, None
        return first

    async def aclose(self) -> None:
        self._first = None
        await self._rest.aclose()


async def prime(stream: ByteStream) -> ByteStream:
    """`stream` with its first piece read, so that what fails at once still has its status.

    A stream without any bytes is `CorruptData`: nobody asks for nothing.
    """
    try:
        return _Primed(await stream.__anext__(), stream)
    except StopAsyncIteration:
        await stream.aclose()
        raise CorruptData("the NAR ended before its first byte") from None
    except BaseException:
        await stream.aclose()
        raise


class Sender:
    """Sends one stream as the body of one response; `sent` says how far it came."""

    def __init__(self, response: web.StreamResponse, length: int | None) -> None:
        self._response = response
        self._length = length
        self._parts: list[bytes] = []
        self._held = 0
        self.sent = 0

    async def send(self, stream: ByteStream) -> None:
        """Raises `CorruptData` if `stream` is shorter or longer than `length`; closes it."""
        now = asyncio.get_running_loop().time
        length = self._length
        # The first bytes go out as they come: a client may be waiting for nothing else.
        due = now()
        async with stream:
            async for part in stream:
                self._parts.append(part)
                self._held += len(part)
                got = self.sent + self._held
                if length is not None and got >= length:
                    if got > length:
                        raise CorruptData(f"the NAR goes on after its {length} bytes")
                elif self._held >= _PIECE or now() >= due:
                    await self._flush()
                    due = now() + _AGE
        if length is not None and self.sent + self._held < length:
            raise CorruptData(f"the NAR ended after {self.sent + self._held} of {length} bytes")
        if self._held:
            await self._flush()

    async def _flush(self) -> None:
        parts = self._parts
        await self._response.write(parts[0] if len(parts) == 1 else b"".join(parts))
        self.sent += self._held
        self._parts = []
        self._held = 0
