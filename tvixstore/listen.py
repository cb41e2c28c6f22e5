"""Addresses that a front door listens on, and sockets bound to them."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from tvixstore.errors import ConfigError

_TCP = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+(?:%[^\]\s]+)?)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>\d{1,5})"
)

# Of open files, where the system sets no limit.
_NO_LIMIT = 1 << 20
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
