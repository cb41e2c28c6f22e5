"""HTTP/2 connections: grpclib's protocol with windows, limits and an end of our own.

What is set here, and why:
- Windows: whoever does not read one stream must not stop the others, so the connection's window is
  as large as those of all its streams together.
- The number of streams: it is advertised, but a client only knows it once our settings reached it.
  Until then it may open more, up to a limit that merely keeps it honest: h2 breaks the connection
  off where that is passed.
- Empty DATA frames, which are legal anywhere, are dropped: grpclib takes one for the stream's end.
- Frames of kinds that nobody knows are dropped: grpclib fails on them.
- A deadline that has passed already, or is years away, is brought within reason: grpclib answers
  the first with UNKNOWN and a traceback in the log.
- Whatever a client sends that h2 fails on breaks its connection off, and nothing else.
- A GOAWAY is only sent to a connection without calls: grpclib's clients, and so daemons of ours,
  drop all calls that are under way when they get one.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from grpclib.config import Configuration
from grpclib.events import _DispatchServerEvents
from grpclib.metadata import decode_timeout, encode_timeout
from grpclib.protocol import Connection, H2Protocol, Stream
from grpclib.server import Handler
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

from tvixstore.log import Logger
from tvixstore.policy.seldom import Seldom
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.http2 import TolerantProcessor, hush

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tvixstore.rpc.server.services import Service

_log = Logger("tvixstore.grpc")

_STREAM_WINDOW: Final = 1024 * 1024
_MAX_STREAMS: Final = 100
_CONNECTION_WINDOW: Final = _MAX_STREAMS * _STREAM_WINDOW
# Streams with which a client breaks the rules, whatever it knows.
_TOO_MANY_STREAMS: Final = 1000
# Puts of blobs go a fifth faster than with frames of 16 or of 256 KiB.
_FRAME: Final = 64 * 1024
# Seconds without anything after which a peer is asked whether it lives, and gets to say so. The
# kernel gives up a peer that takes nothing for as long as both together.
_KEEPALIVE: Final = 60.0
_KEEPALIVE_TIMEOUT: Final = 20.0
# Seconds: the least and the most that a client's deadline is away.
_MIN_TIMEOUT: Final = 0.02
_MAX_TIMEOUT: Final = 86400.0
# Seconds that answers which are written get to leave, once everything else is over.
_FLUSH: Final = 1.0

_CONFIG: Final = Configuration(
    _keepalive_time=_KEEPALIVE,
    _keepalive_timeout=_KEEPALIVE_TIMEOUT,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=_KEEPALIVE,
    http2_connection_window_size=_CONNECTION_WINDOW,
    http2_stream_window_size=_STREAM_WINDOW,
).__for_server__()
_H2_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding="ascii",
    validate_inbound_headers=True,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class Connections:
    """Makes a protocol for each connection, and knows those that are open."""

    def __init__(self, services: Sequence[Service], most: int) -> None:
        self._most = most
        self._crowds = Seldom(_log, "limit.reached")
        self.open: set[_Connection] = set()
        self.draining = False
        self._mapping = {
            path: handler for each in services for path, handler in each.__mapping__().items()
        }
        # Of connections that are lost already, the calls may still be ending.
        self._ending: set[Handler] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __call__(self) -> H2Protocol:
        handler = _Handler(self._mapping, WireCodec(), None, _DispatchServerEvents())
        return _Connection(self, handler)

    def made(self, connection: _Connection) -> bool:
        """Takes note of one more, and whether that is too many."""
        crowded = len(self.open) >= self._most
        if crowded:
            self._crowds.note(what="connections")
        self.open.add(connection)
        self._none_open.clear()
        return not crowded

    def lost(self, connection: _Connection, handler: Handler) -> None:
        self.open.discard(connection)
        self._ending = {each for each in (*self._ending, handler) if not each.check_closed()}
        if not self.open:
            self._none_open.set()

    def drain(self) -> None:
        """Sends home whoever has no call running, now or when the last one is over."""
        self.draining = True
        for connection in list(self.open):
            connection.leave_if_idle()

    async def close(self) -> None:
        """Closes every connection. Their calls are over, apart from saying so."""
        self.draining = True
        if telling := [task for each in self.open for task in each.calls()]:
            await asyncio.wait(telling, timeout=_FLUSH)
        for connection in list(self.open):
            connection.leave()
        try:
            async with asyncio.timeout(_FLUSH):
                await self._none_open.wait()
        except TimeoutError:
            # Whoever does not read what it asked for does not keep the daemon alive.
            for connection in self.open:
                connection.abort()
            await self._none_open.wait()
        while ending := {each for each in self._ending if not each.check_closed()}:
            for handler in ending:
                await handler.wait_closed()


class _Connection(H2Protocol):
    def __init__(self, connections: Connections, handler: Handler) -> None:
        super().__init__(handler, _CONFIG, _H2_CONFIG)
        self._connections = connections
        self._calls = handler
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _set_options(transport.get_extra_info("socket"))
        h2 = H2Connection(config=_H2_CONFIG)
        h2.local_settings = _Settings()
        h2.max_inbound_frame_size = h2.local_settings.max_frame_size
        hush(h2)
        h2.initiate_connection()
        h2.increment_flow_control_window(_CONNECTION_WINDOW - h2.inbound_flow_control_window)
        self.connection = Connection(h2, self._transport, config=_CONFIG)
        self.connection.flush()
        self.connection.initialize()
        self.processor = _Processor(self._calls, self.connection, self.leave_if_idle)
        if not self._connections.made(self):
            h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self.leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        # Calls that are ending wait until they may write how they ended. grpclib never tells them
        # that there is nobody left to read it; this does, and that their streams are gone.
        self.connection._connection.streams.clear()
        self.connection.resume_writing()
        self._connections.lost(self, self._calls)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:
            _log.info("connection.broken_off", reason=f"{type(error).__name__}: {error}")
            self.processor.close("not understood")

    def calls(self) -> list[asyncio.Task[None]]:
        """The tasks in which grpclib serves its calls."""
        return [task for task in self._calls._tasks.values() if not task.done()]

    def leave_if_idle(self) -> None:
        """While draining: says good-bye if no call is running."""
        if self._connections.draining and not self.processor.streams:
            self.leave()

    def leave(self) -> None:
        """Says good-bye, and hangs up once that and all before it is written."""
        if self._transport is None or self._transport.is_closing():
            return
        h2: H2Connection = self.connection._connection
        if h2.state_machine.state is not ConnectionState.CLOSED:
            h2.close_connection()
        self.connection.flush()
        self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Handler(Handler):
    def accept(
        self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        within = [(key, _within_reason(key, value)) for key, value in headers]
        super().accept(stream, within, release_stream)


def _within_reason(key: str, value: str) -> str:
    if key != "grpc-timeout":
        return value
    try:
        return encode_timeout(min(max(decode_timeout(value), _MIN_TIMEOUT), _MAX_TIMEOUT))
    except ValueError:
        # Answered as what it is.
        return value


class _Settings(Settings):
    """What is advertised; of streams more are borne, for clients that do not know it yet."""

    def __init__(self) -> None:
        super().__init__(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: _FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,
            },
        )

    @property  # type: ignore[misc]
    def max_concurrent_streams(self) -> int:
        # What h2 holds clients to; it is never set.
        return _TOO_MANY_STREAMS


class _Processor(TolerantProcessor):
    def __init__(
        self, handler: Handler, connection: Connection, released: Callable[[], None]
    ) -> None:
        super().__init__(handler, connection)
        self._released = released

    def register(self, stream: Stream) -> Callable[[], None]:
        release = super().register(stream)

        def release_and_tell() -> None:
            release()
            self._released()

        return release_and_tell


def _set_options(bound: socket.socket | None) -> None:
    if bound is None or bound.family not in (socket.AF_INET, socket.AF_INET6):
        return
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(AttributeError):
        patience = int((_KEEPALIVE + _KEEPALIVE_TIMEOUT) * 1000)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
