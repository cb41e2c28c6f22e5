"""Listening, and an end that loses no response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvixstore.door import Door, Server
from tvixstore.http.connections import Connections
from tvixstore.http.dispatch import Dispatcher
from tvixstore.http.front import HttpFront
from tvixstore.log import Logger

if TYPE_CHECKING:
    import socket
    import ssl

_log = Logger("tvixstore.http")


class HttpServer(Server):
    def __init__(
        self, front: HttpFront, drain_timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._dispatcher = Dispatcher(front)
        self._connections = Connections(self._dispatcher)
        super().__init__(Door(self._connections, tls), drain_timeout)

    def change(self, front: HttpFront, drain_timeout: float) -> None:
        """Requests from now on are of `front`, whose limits and access are the same."""
        self._dispatcher.change(front)
        self._drain_timeout = drain_timeout

    async def drain(self) -> None:
        """Takes no more connections, and waits for the requests that run, up to the timeout.

        Those that are left then are cancelled. On the connections that there are, `/readyz` says
        503 meanwhile, and each response is the last one.
        """
        self._dispatcher.ended.set()
        self._door.close()
        # Not until their tasks end: those are of connections, which clients may keep.
        if running := self._dispatcher.running:
            try:
                async with asyncio.timeout(self._drain_timeout):
                    await self._dispatcher.drained.wait()
            except TimeoutError:
                _log.warning("drain.cancelled", count=len(running))
                await self._cancel_running()

    async def _close(self) -> None:
        self._dispatcher.ended.set()
        self._door.close()
        await self._cancel_running()
        await self._connections.close()
        await self._door.wait_closed()

    async def _cancel_running(self) -> None:
        while running := set(self._dispatcher.running):
            for task in running:
                task.cancel()
            await asyncio.wait(running)


async def serve(
    front: HttpFront,
    address: str,
    drain_timeout: float,
    tls: ssl.SSLContext | None = None,
    inherited: Sequence[socket.socket] = (),
) -> HttpServer:
    """Opens `front` at ADDR (`host:port`, `[v6]:port`, `unix:/path`, `off`).

    If there are `inherited` sockets, which listen already, it takes them over instead. With `tls`
    over TCP, though not over a unix socket. `drain_timeout` in seconds. Raises `ConfigError`, one
    line, if it cannot listen there.
    """
    return await HttpServer(front, drain_timeout, tls).listening(address, inherited)
