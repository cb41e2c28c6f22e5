"""Listening, and an end that loses no response."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from tvixstore.http.connections import Connections
from tvixstore.http.dispatch import Dispatcher
from tvixstore.http.front import HttpFront
from tvixstore.http.listen import bind, parse_address
from tvixstore.log import Logger

_log = Logger("tvixstore.http")

_BACKLOG = 1024


class HttpServer:
    """A front door that is open. `drain` and then `aclose`, or `aclose` at once."""

    def __init__(self, front: HttpFront, drain_timeout: float) -> None:
        # As really bound, in the form that they are configured in; none if it is off.
        self.addresses: list[str] = []
        self._drain_timeout = drain_timeout
        self._dispatcher = Dispatcher(front)
        self._connections = Connections(self._dispatcher)
        self._listeners: list[asyncio.Server] = []
        # Each with its inode, so that nobody else's is removed in the end.
        self._socket_files: list[tuple[str, int]] = []
        self._closed = False

    async def listen(self, text: str) -> None:
        """Opens the door at ADDR; raises `ConfigError`, one line, if that cannot be."""
        address = parse_address(text)
        if address is None:
            return
        listeners = await bind(address)
        try:
            self.addresses += listeners.addresses
            for bound in listeners.sockets:
                self._listeners.append(await self._serve(bound))
        except BaseException:
            listeners.close()
            raise

    async def drain(self) -> None:
        """Takes no more connections, and waits for the requests that run, up to the timeout.

        Those that are left then are cancelled. On the connections that there are, `/readyz` says
        503 meanwhile, and each response is the last one.
        """
        self._dispatcher.draining = True
        self._stop_listening()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_timeout
        while running := set(self._dispatcher.running):
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
        self._dispatcher.draining = True
        self._stop_listening()
        await self._cancel_running()
        await self._connections.close()
        for listener in self._listeners:
            await listener.wait_closed()

    async def _serve(self, bound: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if bound.family != socket.AF_UNIX:
            return await loop.create_server(self._connections, sock=bound, backlog=_BACKLOG)
        path = bound.getsockname()
        self._socket_files.append((path, os.stat(path).st_ino))
        return await loop.create_unix_server(self._connections, sock=bound, backlog=_BACKLOG)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        for path, inode in self._socket_files:
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._socket_files.clear()

    async def _cancel_running(self) -> None:
        while running := set(self._dispatcher.running):
            for task in running:
                task.cancel()
            await asyncio.wait(running)


async def serve(front: HttpFront, address: str, drain_timeout: float) -> HttpServer:
    """Opens `front` at ADDR (`host:port`, `[v6]:port`, `unix:/path`, `off`).

    `drain_timeout` in seconds. Raises `ConfigError`, one line, if it cannot listen there.
    """
    server = HttpServer(front, drain_timeout)
    try:
        await server.listen(address)
    except BaseException:
        await server.aclose()
        raise
    return server
