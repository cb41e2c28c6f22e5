"""What starts daemons elsewhere: sockets that it passes on, and an ear for what they say."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Self

from tests.support.daemon import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotifySocket:
    """The other end of NOTIFY_SOCKET, at `address`: a path, or `@` and an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address.replace("@", "\0", 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def heard(self) -> list[str]:
        """What was said since it was asked last; nobody needs to have read it meanwhile."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    async def next(self, within: float = PATIENCE) -> dict[str, str]:
        """The next message. Raises `TimeoutError` if there is none `within` so many seconds."""
        async with asyncio.timeout(within):
            text = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in text.decode().splitlines())

    async def told(self, name: str) -> dict[str, str]:
        """The next message that says `name`."""
        while name not in (message := await self.next()):
            pass
        return message


def pass_on(sockets: Mapping[str, list[socket.socket]]) -> tuple[str, list[int]]:
    """What a daemon has to have planted, and which descriptors, to find `sockets` by their names.

    It is the parent's side of socket activation, done in the child, since only that knows its pid.
    """
    descriptors = [each.fileno() for group in sockets.values() for each in group]
    names = ":".join(name for name, group in sockets.items() for _ in group)
    # Out of the way first: some may stand where others have to be.
    program = (
        "import fcntl, os\n"
        f"high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in {descriptors}]\n"
        "for wanted, each in enumerate(high, 3): os.dup2(each, wanted)\n"
        "os.environ.update(\n"
        f"    LISTEN_PID=str(os.getpid()), LISTEN_FDS={str(len(descriptors))!r},\n"
        f"    LISTEN_FDNAMES={names!r},\n"
        ")\n"
    )
    return program, descriptors


def abstract_name() -> str:
    return f"@tvixstore-test-{os.getpid()}-{os.urandom(8).hex()}"
