"""Bodies of requests: asked for when somebody wants them, streamed, and bounded where they are not.

A client that sends `Expect: 100-continue` waits until it is asked. So what is refused by its head
is refused before its body is on its way; whoever reads the body has decided to take it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from aiohttp.http import HttpVersion11

from tvixstore.compression import Decoder, decoder
from tvixstore.errors import CorruptData, InvalidData, TooLong, Unsupported
from tvixstore.pools import Pools

if TYPE_CHECKING:
    from aiohttp import web

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_IDENTITY = "identity"


class Incoming:
    """The body of one request, not read yet."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._asked = False

    @property
    def encodings(self) -> tuple[str, ...]:
        """Its content codings, the outermost (first to be undone) first."""
        names = self._request.headers.get("Content-Encoding", "").lower().split(",")
        stripped = [name.strip() for name in names]
        return tuple([name for name in reversed(stripped) if name not in ("", _IDENTITY)])

    @property
    def length(self) -> int | None:
        """Its Content-Length, if it has one."""
        return self._request.content_length

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come, as they were sent. Whoever stops early closes the generator."""
        await self._ask()
        while data := await self._request.content.readany():
            yield data

    async def read(self, limit: int, pools: Pools) -> bytes:
        """All of it, decoded; raises `TooLong` beyond `limit` bytes, and `InvalidData`."""
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise _too_long(limit)
        try:
            undo = decoder("none", self.encodings)
        except Unsupported as error:
            raise InvalidData(f"Content-Encoding: {error}") from error
        await self._ask()
        data = bytearray()
        while part := await self._request.content.readany():
            data += part
            if len(data) > limit:
                raise _too_long(limit)
        if not self.encodings:
            return bytes(data)
        return await pools.cpu.run(_decode, undo, bytes(data), limit)

    @property
    def _expects(self) -> bool:
        return self._request.headers.get("Expect", "").lower() == "100-continue"

    async def _ask(self) -> None:
        """Lets the client send it."""
        if self._asked:
            return
        self._asked = True
        request = self._request
        if self._expects and request.version == HttpVersion11 and not request.content.is_eof():
            await request.writer.write(_CONTINUE)
            # No part of the response has been written by that.
            request.writer.output_size = 0


def _decode(undo: Decoder, data: bytes, limit: int) -> bytes:
    """In a thread."""
    decoded = bytearray()
    try:
        for piece in undo.feed(data):
            decoded += piece
            if len(decoded) > limit:
                raise _too_long(limit)
        undo.finish()
    except CorruptData as error:
        raise InvalidData(f"its Content-Encoding is damaged: {error}") from error
    return bytes(decoded)


def _too_long(limit: int) -> TooLong:
    return TooLong(f"the body is longer than {limit} bytes")
