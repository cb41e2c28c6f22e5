"""The protocol side: aiohttp's low-level server with our limits, our refusals and our end."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from tvixstore.http.dispatch import Dispatcher
from tvixstore.log import Logger

_log = Logger("tvixstore.http")

# Seconds that a connection may stay idle, or take to send one request's head. Longer than Nix
# keeps its own (118 s), so that it is the client who closes.
_IDLE = 130.0
# Seconds for which the body of a request, which nobody wants, is read away after the answer.
_LINGER = 2.0
# Bytes of a target (a castore node of 4 KiB fits) or of a header line, and header lines.
_MAX_LINE = 8190
_MAX_HEADERS = 64
# Seconds that responses which are written get to leave, once everything else is over.
_FLUSH = 1.0
# Seconds for aiohttp's own tasks to notice that it is over; 0 would mean for ever to it.
_MOMENT = 0.1


class Connections(web.Server):
    """Makes a protocol for each connection, and knows the transports that are open."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher.handle, handler_cancellation=True)
        self.dispatcher = dispatcher
        self._opened_by: dict[web.RequestHandler, asyncio.Transport] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._opened_by[handler] = transport
        self._none_open.clear()
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self._opened_by.pop(handler, None)
        if not self._opened_by:
            self._none_open.set()
        super().connection_lost(handler, exc)

    async def close(self) -> None:
        """Closes every connection; none of them has a request running any more."""
        self.pre_shutdown()
        await self.shutdown(_MOMENT)
        try:
            async with asyncio.timeout(_FLUSH):
                await self._none_open.wait()
        except TimeoutError:
            # Whoever does not read what it asked for does not keep the daemon alive.
            for transport in self._opened_by.values():
                transport.abort()
            await self._none_open.wait()


class _Connection(web.RequestHandler):
    __slots__ = ("_dispatcher",)

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=_IDLE,
            lingering_time=_LINGER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )
        self._dispatcher = connections.dispatcher

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or, if we made a mistake, could not handle."""
        if status != HTTPStatus.BAD_REQUEST:
            _log.error("request.failed_outside_route", exc_info=exc, status=status)
            message = "internal error"
        elif isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun, so there is no room for another")
        return self._dispatcher.refuse(status, message or "malformed request")
