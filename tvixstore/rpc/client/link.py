"""Connections to one peer, with windows and a bound of streams that fit each other.

With a connection window that a few streams can fill, one paused reader would hang every other call.
So a connection's window is what all streams that may be open on it can fill together, and streams
that somebody else paces (readers and writers, calls that may take minutes) leave places for short
calls, which always come to an end. When they need more, another connection is opened for them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from h2.settings import SettingCodes

from tvixstore.errors import Unavailable
from tvixstore.pools import Pool, Pools
from tvixstore.rpc.client.address import Target
from tvixstore.rpc.client.call import Timeout, in_own_task
from tvixstore.rpc.client.identity import Identity
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.http2 import TolerantProcessor, hush

if TYPE_CHECKING:
    from asyncio import BaseTransport

STREAM_WINDOW: Final = 1 << 20
CONNECTION_WINDOW: Final = 64 << 20
# A whole message of a blob comes in one frame.
FRAME: Final = 260 << 10
# Streams open on one connection: those at somebody's pace, and short calls.
PACED: Final = 32
PROMPT: Final = CONNECTION_WINDOW // STREAM_WINDOW - PACED
CONNECTIONS: Final = 8
# A peer that is gone without a word is noticed while calls are open: pinged so often, and given up
# when it does not answer for so long (in seconds).
PING_EVERY: Final = 30.0
PING_TIMEOUT: Final = 20.0
# A connection that takes no byte for so long while there is something to send is given up.
STUCK: Final = 60.0

_CONFIGURATION: Final = Configuration(
    http2_connection_window_size=CONNECTION_WINDOW,
    http2_stream_window_size=STREAM_WINDOW,
    _keepalive_time=PING_EVERY,
    _keepalive_timeout=PING_TIMEOUT,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=PING_EVERY / 2,
)

Dial = Callable[[], Channel]


class _Protocol(H2Protocol):
    """Knows its transport, also when grpclib has forgotten it, and when that is gone."""

    transport: asyncio.Transport | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.lost = asyncio.Event()
        super().connection_made(transport)
        self.processor = TolerantProcessor(self.handler, self.connection)
        hush(self.connection._connection)
        self.connection._connection.update_settings({SettingCodes.MAX_FRAME_SIZE: FRAME})
        self.connection.flush()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._stuck = asyncio.get_running_loop().call_later(STUCK, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._calm()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._calm()
        super().connection_lost(exc)
        self.lost.set()

    def _calm(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    async def abort(self) -> None:
        """Ends the connection at once: a peer that takes nothing would keep it open."""
        if self.transport is not None:
            self.transport.abort()
            await self.lost.wait()


class PeerChannel(Channel):
    """A channel over connections of ours, whose names are resolved in `dns`."""

    dns: Pool | None = None
    identity: Identity | None = None

    async def _create_connection(self) -> H2Protocol:
        if self._ssl is not None and self.identity is not None:
            self._ssl = await self.identity.context()
        if self.dns is None or self._path is not None:
            return await super()._create_connection()
        failure = OSError(f"{self._host} has no address")
        for address in await self.dns.abandon(_look_up, self._host, self._port):
            try:
                _, protocol = await self._loop.create_connection(
                    self._protocol_factory,
                    address,
                    self._port,
                    ssl=self._ssl,
                    server_hostname=None if self._ssl is None else self._host,
                )
            except OSError as error:
                failure = error
            else:
                return protocol
        raise failure

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(super()._protocol_factory().handler, self._config, self._h2_config)

    async def aclose(self) -> None:
        protocol = self._protocol
        self.close()
        if isinstance(protocol, _Protocol):
            await protocol.abort()


def _look_up(host: str, port: int) -> list[str]:
    """In a thread: the addresses of `host`, in digits, each once, in the order to be tried."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return list(dict.fromkeys(socket.getnameinfo(where, flags)[0] for *_, where in found))


def dialer(target: Target, pools: Pools | None = None, identity: Identity | None = None) -> Dial:
    """Makes channels to `target`; each connects when it is first used, and again when it has to."""

    def dial() -> Channel:
        # One that trusts nobody, in whose place comes another with each connection.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if target.tls else None
        channel = PeerChannel(
            target.host,
            target.port,
            path=target.path,
            ssl=context,
            codec=WireCodec(),
            config=_CONFIGURATION,
        )
        channel.dns = None if pools is None else pools.dns
        channel.identity = identity or Identity(str(target), pools=pools)
        return channel

    return dial


class Link:
    """One connection, while there is one."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.paced = 0
        self._prompt = asyncio.Semaphore(PROMPT)

    @property
    def connected(self) -> bool:
        return self.channel._connected

    @property
    def connection(self) -> object | None:
        """What is another one after each time that it was lost; `None` while there is none."""
        return self.channel._protocol if self.connected else None

    async def connect(self, seconds: float) -> bool:
        """Connects, unless it is; whether it had to. Raises `Timeout` and `OSError`."""
        if self.connected:
            if not self.channel._protocol.connection.is_closing():  # type: ignore[union-attr]
                return False
            # grpclib has given it up, and waits for the peer to take the rest.
            await self.aclose()
        await in_own_task(self.channel.__connect__(), seconds)
        return True

    @asynccontextmanager
    async def place(self, seconds: float) -> AsyncIterator[None]:
        """A place for a short call. Raises `Timeout` if there is none in time."""
        await _acquire(self._prompt, seconds)
        try:
            yield
        finally:
            self._prompt.release()

    async def aclose(self) -> None:
        if isinstance(self.channel, PeerChannel):
            await self.channel.aclose()


class Links:
    """The connections to one peer: the first for everything, others for paced streams alone."""

    def __init__(self, dial: Dial, most: int = CONNECTIONS) -> None:
        self._dial = dial
        self._places = asyncio.Semaphore(most * PACED)
        self._links: list[Link] = []
        self._closed = False

    def first(self) -> Link:
        if self._closed:
            raise Unavailable("the connection to it was closed here")
        if not self._links:
            self._links.append(Link(self._dial()))
        return self._links[0]

    async def take(self, seconds: float) -> Link:
        """A connection with a place for a paced stream, to be given back by `release`.

        Raises `Timeout` if there is none in time.
        """
        await _acquire(self._places, seconds)
        try:
            self.first()
        except Unavailable:
            self._places.release()
            raise
        link = next((link for link in self._links if link.paced < PACED), None)
        if link is None:
            link = Link(self._dial())
            self._links.append(link)
        link.paced += 1
        return link

    async def release(self, link: Link) -> None:
        link.paced -= 1
        self._places.release()
        if not link.paced and link in self._links[1:]:
            self._links.remove(link)
            await link.aclose()

    async def aclose(self) -> None:
        """Breaks whatever is still open."""
        self._closed = True
        for link in self._links:
            await link.aclose()


async def _acquire(places: asyncio.Semaphore, seconds: float) -> None:
    if not places.locked():
        await places.acquire()
        return
    try:
        async with asyncio.timeout(seconds):
            await places.acquire()
    except TimeoutError:
        raise Timeout from None
