"""The protocol side: aiohttp's low-level server with our limits, our refusals and our end."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from tvixstore.errors import InvalidData
from tvixstore.http.dispatch import Dispatcher
from tvixstore.http.slow import Since, SlowClient, awaited, untaken
from tvixstore.log import Logger

_log = Logger("tvixstore.http")

# Seconds for which the body of a request, which nobody wants, is read away after the answer.
_LINGER = 2.0
# Bytes of a target (a castore node of 4 KiB fits) or of a header line, and header lines.
_MAX_LINE = 8190
_MAX_HEADERS = 64
# Seconds that responses which are written get to leave, once everything else is over.
_FLUSH = 1.0
# Looks at each connection in the shortest time that anything may take.
_LOOKS = 4
# Seconds for aiohttp's own tasks to notice that it is over; 0 would mean for ever to it.
_MOMENT = 0.1


class Connections(web.Server):
    """Makes a protocol for each connection, and knows the transports that are open."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher.handle, handler_cancellation=True)
        self.dispatcher = dispatcher
        self.limits = dispatcher.limits
        shortest = min(
            self.limits.first_byte,
            self.limits.head,
            self.limits.body_begin,
            self.limits.body_stall,
            self.limits.reader_stall,
        )
        self._interval = shortest / _LOOKS
        self._timer: asyncio.TimerHandle | None = None
        self._opened_by: dict[_Connection, asyncio.Transport] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)

    @property
    def full(self) -> bool:
        return len(self._opened_by) >= self.limits.connections

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        assert isinstance(handler, _Connection)
        self._opened_by[handler] = transport
        self._none_open.clear()
        if self._timer is None:
            self._look_later()
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        assert isinstance(handler, _Connection)
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
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for handler, transport in list(self._opened_by.items()):
            handler.look(transport, now)
        if self._opened_by:
            self._look_later()


class _Connection(web.RequestHandler):
    __slots__ = ("_awaiting", "_connections", "_dispatcher", "_head", "_idle", "_taking")

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=connections.limits.idle,
            lingering_time=_LINGER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )
        self._connections = connections
        self._dispatcher = connections.dispatcher
        # Whether the head of a request has begun to come, and has not come to its end.
        self._head = False
        # For the looks: since when nothing came, the next of a body did not, nothing was taken.
        self._idle, self._awaiting, self._taking = Since(), Since(), Since()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.full:
            # No task, and nobody who waits: all that it costs is this one write.
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(self._dispatcher.turn_away())
            transport.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # While the next request is waited for, all that comes is of its head.
        self._head = self._waiter is not None and not self._messages
        request = self._current_request
        if self._messages and request is not None and not request.content.is_eof():
            # Nothing comes behind a body before that has ended: aiohttp found no sense in what
            # came, and would leave whoever reads the body waiting for the rest.
            self._messages.clear()
            self.close()
            request.content.set_exception(InvalidData("the body of the request is malformed"))

    def look(self, transport: asyncio.Transport, now: float) -> None:
        """Ends what is over its time."""
        limits, request = self._connections.limits, self._current_request
        left = transport.get_write_buffer_size()
        if self._taking.seconds(untaken(request, left), now) >= limits.reader_stall:
            _log.info("client.stuck", reason=f"it took nothing for {limits.reader_stall:g} s")
            transport.abort()
        elif self._awaiting.seconds(awaited(request), now) >= (stall := self._stall(request)):
            assert request is not None
            reason = f"nothing of the request's body came for {stall:g} s"
            _log.info("client.slow", reason=reason)
            request.content.set_exception(SlowClient(reason))
        elif self._idle.seconds(self._incomplete(), now) >= (
            limits.head if self._head else limits.first_byte
        ):
            if self._head:
                transport.write(self._dispatcher.time_out(limits.head))
            self.force_close()

    def _stall(self, request: web.BaseRequest | None) -> float:
        """Seconds that the next byte of a body may take."""
        limits = self._connections.limits
        if request is None or "Expect" not in request.headers or request.content.total_bytes:
            return limits.body_stall
        return min(limits.body_begin, limits.body_stall)

    def _incomplete(self) -> object | None:
        """What has been there of a first request, or of a head; `None` if that is not so."""
        if self._waiter is None or self._messages:
            return None
        return (self._request_count, self._head) if self._head or not self._request_count else None

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
