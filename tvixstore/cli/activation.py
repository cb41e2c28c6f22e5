"""Sockets that somebody else listens on for the daemon: systemd's socket activation.

Whoever starts it says how many descriptors it passes on, from 3 on (LISTEN_FDS), to which process
(LISTEN_PID), and what each is called (LISTEN_FDNAMES, `FileDescriptorName=` in a socket unit).
`http` and `grpc` are the names of the doors; a door with sockets of its name binds none itself. If
neither name occurs, they are handed to the doors that are not off, in this order, one each.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tvixstore.compose import Daemon
from tvixstore.compose.values import Address, is_loopback
from tvixstore.errors import ConfigError

_DOORS = ("http", "grpc")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets of each door, listening already. A door that opens takes its own over."""

    http: list[socket.socket] = field(default_factory=list)
    grpc: list[socket.socket] = field(default_factory=list)

    def placed(self, daemon: Daemon) -> Daemon:
        """`daemon` with the addresses where it is really reached: what it takes depends on them."""
        found = {door: _farthest(sockets) for door in _DOORS if (sockets := getattr(self, door))}
        return daemon.model_copy(update=found)

    def close(self) -> None:
        for each in (*self.http, *self.grpc):
            each.close()


@contextmanager
def inherited_sockets(
    daemon: Daemon, environ: MutableMapping[str, str], first: int = 3
) -> Iterator[Inherited]:
    """What was passed on to this process, from the descriptor `first` on; closed in the end.

    It is no longer said in `environ` then, so that no child takes it for its own. Raises
    `ConfigError`, one line, for what no door can use.
    """
    count, pid, names = (
        environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    )
    inherited = Inherited()
    try:
        if count and pid == str(os.getpid()):
            doors = _doors_of(_number(count), names, daemon)
            for door, taken in zip(doors, _take(first, len(doors)), strict=True):
                getattr(inherited, door).append(taken)
        yield inherited
    finally:
        inherited.close()


def _number(count: str) -> int:
    if not (count.isascii() and count.isdecimal() and len(count) <= 4):
        raise ConfigError(f"LISTEN_FDS is {count!r}, not a number of sockets")
    return int(count)


def _doors_of(count: int, text: str, daemon: Daemon) -> list[str]:
    """The door of each socket."""
    names = text.split(":") if text else ["unknown"] * count
    if len(names) != count:
        raise ConfigError(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets")
    doors = [door for door in _DOORS if getattr(daemon, door).kind != "off"]
    if not set(names) & set(_DOORS):
        if count > len(doors):
            raise ConfigError(
                f"{count} sockets were inherited for {' and '.join(doors)}: say with "
                "FileDescriptorName=http or grpc in the socket unit which is which"
            )
        return doors[:count]
    for name in names:
        if name not in _DOORS:
            raise ConfigError(f"an inherited socket is named {name!r}, neither http nor grpc")
        if name not in doors:
            raise ConfigError(
                f'a socket named {name} was inherited, but {name} = "off": disable the socket unit'
            )
    return names


def _take(first: int, count: int) -> list[socket.socket]:
    with ExitStack() as undo:
        taken = [
            undo.enter_context(_take_one(descriptor)) for descriptor in range(first, first + count)
        ]
        undo.pop_all()
    return taken


def _take_one(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        taken = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(
            f"inherited descriptor {descriptor} is not a socket: {error.strerror}"
        ) from None
    if taken.family not in _FAMILIES or taken.type != socket.SOCK_STREAM:
        wrong = "is no stream socket of TCP or unix: write ListenStream= in the socket unit"
    elif not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "does not listen: write Accept=no in the socket unit"
    else:
        return taken
    taken.close()
    raise ConfigError(f"inherited socket {descriptor} {wrong}")


def _farthest(sockets: list[socket.socket]) -> Address:
    """The address of the one that the most can connect to."""
    addresses = [_address_of(each) for each in sockets]
    others = [each for each in addresses if each.kind == "tcp" and not is_loopback(each.host)]
    return (others or addresses)[0]


def _address_of(listening: socket.socket) -> Address:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return Address("unix", path=os.fsdecode(name))
    return Address("tcp", str(name[0]), int(name[1]))
