"""Listening, and an end that breaks no call off which would have come to its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvixstore.listen import Door
from tvixstore.log import Logger
from tvixstore.policy.tasks import end
from tvixstore.rpc.server.connections import Connections
from tvixstore.rpc.server.dispatch import Dispatcher
from tvixstore.rpc.server.front import GrpcFront
from tvixstore.rpc.server.services import services

if TYPE_CHECKING:
    import socket
    import ssl

_log = Logger("tvixstore.grpc")


class GrpcServer:
    """A front door that is open. `drain` and then `aclose`, or `aclose` at once."""

    def __init__(
        self, front: GrpcFront, drain_timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._drain_timeout = drain_timeout
        self._dispatcher = Dispatcher(front)
        self._connections = Connections(services(front, self._dispatcher), front.limits.connections)
        self._door = Door(self._connections, tls)
        self._closed = False

    @property
    def addresses(self) -> list[str]:
        """As really bound, in the form that they are configured in; none if it is off."""
        return self._door.addresses

    async def listen(self, text: str, inherited: Sequence[socket.socket] = ()) -> None:
        """Opens the door, on `inherited` sockets if there are any, otherwise at ADDR.

        Raises `ConfigError`, one line, if that cannot be.
        """
        await self._door.open(text, inherited)

    def change(self, front: GrpcFront, drain_timeout: float) -> None:
        """Calls from now on are of `front`, whose limits and access are the same."""
        self._dispatcher.change(front)
        self._drain_timeout = drain_timeout

    async def renew(self, tls: ssl.SSLContext) -> None:
        """New connections are made with `tls` from now on."""
        await self._door.renew(tls)

    async def drain(self) -> None:
        """Takes no more connections nor calls, and waits for those that run, up to the timeout.

        Calls that are left then are cancelled. Health says NOT_SERVING meanwhile.
        """
        self._dispatcher.draining.set()
        self._door.close()
        self._connections.drain()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_timeout
        while running := self._dispatcher.running.tasks:
            if (left := until - loop.time()) <= 0:
                _log.warning("drain.cancelled", count=len(running))
                await self._cancel_running()
                return
            await asyncio.wait(running, timeout=left)

    async def aclose(self) -> None:
        """Cancels what still runs, and closes the connections once what was written has left."""
        if self._closed:
            return
        self._closed = True
        self._dispatcher.draining.set()
        self._door.close()
        await self._cancel_running()
        self._dispatcher.running.close()
        await self._connections.close()
        await self._door.wait_closed()

    async def _cancel_running(self) -> None:
        while running := self._dispatcher.running.tasks:
            await end(running)


async def serve(
    front: GrpcFront,
    address: str,
    drain_timeout: float,
    tls: ssl.SSLContext | None = None,
    inherited: Sequence[socket.socket] = (),
) -> GrpcServer:
    """Opens `front` at ADDR (`host:port`, `[v6]:port`, `unix:/path`, `off`).

    If there are `inherited` sockets, which listen already, it takes them over instead. With `tls`
    over TCP, though not over a unix socket. `drain_timeout` in seconds. Raises `ConfigError`, one
    line, if it cannot listen there.
    """
    server = GrpcServer(front, drain_timeout, tls)
    try:
        await server.listen(address, inherited)
    except BaseException:
        await server.aclose()
        raise
    return server
