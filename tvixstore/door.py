"""Front doors: listeners, and the servers behind them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from tvixstore.listen import Listeners, bind, parse_address

if TYPE_CHECKING:
    import ssl

_BACKLOG = 1024
# Seconds that a TLS handshake may take, and the end of a connection.
_HANDSHAKE = 15.0
_GOODBYE = 5.0

# From Python 3.13 on, event loops would remove the files of unix sockets, whoever's they are.
_NO_CLEANUP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Door:
    """The listeners of one front door, each connection of which gets a protocol from `factory`.

    With `tls` over TCP; whoever comes by a unix socket is on this machine, and under its
    permissions.
    """

    def __init__(
        self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> None:
        # As really bound, in the form that they are configured in; none if it is off.
        self.addresses: list[str] = []
        self._factory = factory
        self._tls = tls
        self._closed = False
        # Those that take connections, each with its socket, and all that there have been.
        self._taking: list[tuple[asyncio.Server, socket.socket]] = []
        self._listeners: list[asyncio.Server] = []
        # Each with its inode, so that nobody else's is removed in the end.
        self._socket_files: list[tuple[str, int]] = []

    async def open(self, text: str, inherited: Sequence[socket.socket] = ()) -> None:
        """Listens at ADDR, or on the sockets that somebody else has bound and passed on.

        Raises `ConfigError`, one line, if that cannot be.
        """
        if inherited:
            listeners = Listeners([*inherited])
        elif (address := parse_address(text)) is None:
            return
        else:
            listeners = await bind(address)
        try:
            self.addresses += listeners.addresses
            for bound in listeners.sockets:
                await self._take_from(bound, ours=not inherited)
        except BaseException:
            listeners.close()
            raise

    async def renew(self, tls: ssl.SSLContext) -> None:
        """From now on connections are made with `tls`; those that there are stay as they are.

        Each socket is taken over by another listener before the old one goes, so nobody who
        connects meanwhile is turned away. Contexts themselves are never changed: sessions that were
        agreed on under the old one, and clients that it let in, could come back.
        """
        self._tls = tls
        for listener, bound in list(self._taking):
            if bound.family == socket.AF_UNIX:
                continue
            await self._take_from(bound.dup(), ours=True)
            self._taking.remove((listener, bound))
            listener.close()

    def close(self) -> None:
        """Takes no more connections; those that there are stay."""
        self._closed = True
        self._taking.clear()
        for listener in self._listeners:
            listener.close()
        for path, inode in self._socket_files:
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._socket_files.clear()

    async def wait_closed(self) -> None:
        for listener in self._listeners:
            await listener.wait_closed()

    async def _take_from(self, bound: socket.socket, *, ours: bool) -> None:
        if ours and bound.family == socket.AF_UNIX:
            path = bound.getsockname()
            self._socket_files.append((path, os.stat(path).st_ino))
        listener = await self._serve(bound)
        self._listeners.append(listener)
        if self._closed:
            # Meanwhile, while it was being renewed.
            listener.close()
        else:
            self._taking.append((listener, bound))

    async def _serve(self, bound: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if bound.family == socket.AF_UNIX:
            # We remove the file ourselves; one that was passed on is not ours to remove.
            return await loop.create_unix_server(
                self._factory, sock=bound, backlog=_BACKLOG, **_NO_CLEANUP
            )
        patience = None if self._tls is None else _HANDSHAKE
        goodbye = None if self._tls is None else _GOODBYE
        return await loop.create_server(
            self._factory,
            sock=bound,
            backlog=_BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=patience,
            ssl_shutdown_timeout=goodbye,
        )


class Server(ABC):
    """A front door that is open. `drain` and then `aclose`, or `aclose` at once."""

    def __init__(self, door: Door, drain_timeout: float) -> None:
        self._door = door
        self._drain_timeout = drain_timeout
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

    async def listening(self, text: str, inherited: Sequence[socket.socket] = ()) -> Self:
        """The server itself, once it listens; closed if it cannot."""
        try:
            await self.listen(text, inherited)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def renew(self, tls: ssl.SSLContext) -> None:
        """New connections are made with `tls` from now on."""
        await self._door.renew(tls)

    @abstractmethod
    async def drain(self) -> None:
        """Takes no more connections, and waits for what runs, up to the timeout."""

    async def aclose(self) -> None:
        """Cancels what still runs, and closes the connections once what was written has left."""
        if not self._closed:
            self._closed = True
            await self._close()

    @abstractmethod
    async def _close(self) -> None: ...
