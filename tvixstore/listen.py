"""Addresses that a front door listens on, sockets bound to them, and the door that they make."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvixstore.errors import ConfigError

if TYPE_CHECKING:
    import ssl

_TCP = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+(?:%[^\]\s]+)?)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>\d{1,5})"
)

_BACKLOG = 1024
# Of open files, where the system sets no limit.
_NO_LIMIT = 1 << 20
# Seconds that a TLS handshake may take, and the end of a connection.
_HANDSHAKE = 15.0
_GOODBYE = 5.0

# From Python 3.13 on, event loops would remove the files of unix sockets, whoever's they are.
_NO_CLEANUP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

# Of a name's several addresses, those that this machine lacks are left out, as long as one is left.
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_REMEDIES = {
    errno.EADDRINUSE: "is in use: is another daemon running? Stop it, or choose another address",
    errno.EACCES: "is not permitted: ports below 1024 and other users' folders need privileges",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EAFNOSUPPORT: "is of a family that this machine does not have",
    errno.ENOENT: "is in a folder that does not exist",
}


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def half_of_files() -> int:
    """Half of the files that this process may have open: connections are to leave some for disks
    and upstreams."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (_NO_LIMIT if most == resource.RLIM_INFINITY else most) // 2


def parse_address(text: str) -> Address | None:
    """`host:port`, `[v6]:port` or `unix:/path`; `off` is `None`. Raises `ConfigError`."""
    if text == "off":
        return None
    if text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(f"{text!r} is not `host:port`, `[v6]:port`, `unix:/path` or `off`")
    return TcpAddress(match["v6"] or match["host"], int(match["port"]))


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


@dataclass(eq=False)
class Listeners:
    """Bound sockets that do not listen yet. Whoever takes them closes them."""

    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """As really bound: port 0 is replaced by the one that was given."""
        return [_address_of(bound) for bound in self.sockets]

    def close(self) -> None:
        for bound in self.sockets:
            bound.close()


async def bind(address: Address) -> Listeners:
    """Sockets bound to `address`, several if it is a name of several. Raises `ConfigError`."""
    listeners = Listeners()
    try:
        if isinstance(address, UnixAddress):
            listeners.sockets.append(_bind_unix(address.path))
        else:
            await _bind_tcp(address, listeners.sockets)
    except OSError as error:
        listeners.close()
        reason = _REMEDIES.get(error.errno or 0) or f"cannot be bound: {error.strerror or error}"
        raise ConfigError(f"cannot listen: {address} {reason}") from None
    return listeners


async def _bind_tcp(address: TcpAddress, bound: list[socket.socket]) -> None:
    port = address.port
    missing: OSError | None = None
    for family, host in await _resolve(address):
        try:
            bound.append(_bind_one(family, host, port))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            missing = error
        else:
            # The addresses of one name share one port, whichever the first was given.
            port = port or bound[-1].getsockname()[1]
    if missing is not None and not bound:
        raise missing


async def _resolve(address: TcpAddress) -> list[tuple[socket.AddressFamily, str]]:
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(
            address.host, 0, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                address.host, 0, type=socket.SOCK_STREAM, flags=flags
            )
        except socket.gaierror as error:
            raise ConfigError(
                f"cannot listen: {address.host!r} does not resolve: {error.strerror}"
            ) from None
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found))


def _bind_one(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `[::]` is everything, IPv4 included; any other address is that one family's.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def _bind_unix(path: str) -> socket.socket:
    if len(os.fsencode(path)) > 107:
        raise ConfigError(
            f"cannot listen: unix:{path} is longer than the 107 bytes of a socket path"
        )
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
    except BaseException:
        made.close()
        raise
    return made


def _remove_stale(path: str) -> None:
    """Removes a socket file that nobody listens on any more, left by a daemon that was killed."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except BlockingIOError:
            # Its backlog is full: somebody listens, and `bind` will say so.
            return


def _address_of(bound: socket.socket) -> str:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        # An abstract one, which can only be inherited, begins with a NUL; people write an @.
        return str(UnixAddress(os.fsdecode(name).replace("\0", "@", 1)))
    return str(TcpAddress(name[0], name[1]))
