"""Listening, and an end that breaks no call off which would have come to its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvixstore.door import Door, Server
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


class GrpcServer(Server):
    def __init__(
        self, front: GrpcFront, drain_timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._dispatcher = Dispatcher(front)
        self._connections = Connections(services(front, self._dispatcher), front.limits.connections)
        super().__init__(Door(self._connections, tls), drain_timeout)

    def change(self, front: GrpcFront, drain_timeout: float) -> None:
        """Calls from now on are of `front`, whose limits and access are the same."""
        self._dispatcher.change(front)
        self._drain_timeout = drain_timeout

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

    async def _close(self) -> None:
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
    return await GrpcServer(front, drain_timeout, tls).listening(address, inherited)
