"""GET, straight over the connections of an aiohttp session.

Connections (addresses, TLS, keeping them) and the reading of HTTP are aiohttp's, by the interface
that it has for them. Only what its session does between the two is left out: cookies, uploads,
authentication, redirects, middleware, none of which we use, cost two thirds of a small request.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import yarl

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from multidict import CIMultiDictProxy

    from tvixstore.pathinfo.nix.urls import Url

# Places that are kept in mind: an upstream's, and those that it redirects to.
_PLACES = 16
_UPGRADE = 101


class Reply(NamedTuple):
    """`connection` takes care of itself when `content` ends, and else has to be closed."""

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    connection: aiohttp.connector.Connection


class _Place(NamedTuple):
    """What requests to one origin have in common: `lines` are their headers."""

    request: aiohttp.ClientRequest
    lines: bytes


class Gets:
    """Sends requests without a proxy; `headers` are those of all, `read_ahead` is in bytes."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str],
        read_ahead: int,
    ) -> None:
        self._connector = connector
        self._timeout = timeout
        self._headers = headers
        self._read_ahead = read_ahead
        self._places: dict[tuple[tuple[str, str, int], ssl.SSLContext | bool], _Place] = {}

    async def send(
        self, url: Url, headers: Mapping[str, str], context: ssl.SSLContext | bool
    ) -> Reply:
        """What is answered, once its headers are there.

        Raises what a session raises, and aiohttp's `HttpProcessingError` for what is no HTTP.
        """
        place = self._place(url, context)
        sent = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (url.target.encode(), place.lines, _lines(headers))
        try:
            return await self._exchange(place.request, sent)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            # A connection that was kept may have been closed in the very moment it was used.
            return await self._exchange(place.request, sent)

    def _place(self, url: Url, context: ssl.SSLContext | bool) -> _Place:
        key = url.origin, context
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _PLACES:
                self._places.clear()
            request = aiohttp.ClientRequest(
                "GET",
                yarl.URL(f"{url.base}/", encoded=True),
                headers=self._headers,
                loop=asyncio.get_running_loop(),
                ssl=context,
            )
            place = self._places[key] = _Place(request, _lines(request.headers))
        return place

    async def _exchange(self, request: aiohttp.ClientRequest, sent: bytes) -> Reply:
        try:
            connection = await self._connector.connect(request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        try:
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("closed as soon as it was there")
            protocol.set_response_params(
                read_until_eof=True, auto_decompress=False, read_bufsize=self._read_ahead
            )
            transport.write(sent)
            message, content = await protocol.read()
            # Early hints and the like, before the answer.
            while 100 <= message.code < 200 and message.code != _UPGRADE:
                message, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        content.on_eof(connection.release)
        return Reply(message.code, message.headers, content, connection)


def _lines(headers: Mapping[str, str]) -> bytes:
    if not headers:
        return b""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise OSError(errno.EINVAL, "a header that is to be sent has a line break in it")
    # What came from the upstream itself, as a validator, goes back as it was.
    return text.encode("utf-8", "surrogateescape")
