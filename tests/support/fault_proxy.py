"""A reverse proxy on loopback that damages, on purpose, what comes from the server behind it.

    async with FaultProxy(upstream.port) as proxy:
        proxy.arm("/nar/x.nar", Fault("reset", after=1000))
        …proxy.url…
        assert proxy.hits == [("/nar/x.nar", "reset")]

A fault strikes every answer for its target, until `disarm`. `after` counts bytes of the body that
the server has, so that a client who comes back with a Range is not let past the place that was hit.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self, get_args

Kind = Literal[
    # No connection any more, and the present one is reset.
    "refused",
    # RST, FIN, silence.
    "reset",
    "close",
    "stall",
    # A byte is another one; the body ends early, and well; the rest dribbles.
    "corrupt",
    "truncate",
    "slow",
    # An answer of that status, or a page for people with status 200. If bytes are to get through
    # first, the connection breaks after them, and whoever comes back gets the status.
    "500",
    "503",
    "403",
    "404",
    "html",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_PIECE = 16 << 10
_HTML = b"<html><body>Welcome to the hotel's network. Please sign in.</body></html>"
# A slow body takes this long in so many pieces: without end for a lookup, no stall for a download.
_SLOW_PIECES, _SLOW_PAUSE = 12, 0.15


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    after: int = 0


class _Broken(Exception):
    """The connection to the client is not to be used any longer."""


class FaultProxy:
    """In front of the server on `target_port`; every target without a fault passes unharmed."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        # Each target asked for, and each fault that struck, in order.
        self.log: list[str] = []
        self.hits: list[tuple[str, Kind]] = []
        self._struck: dict[str, asyncio.Event] = {}
        self._target_port = target_port
        self._faults: dict[str, Fault] = {}
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def armed(self) -> frozenset[str]:
        """The targets that a fault waits for."""
        return frozenset(self._faults)

    def arm(self, target: str, fault: Fault) -> None:
        self._faults[target] = fault

    def struck(self, target: str) -> asyncio.Event:
        """Set once a fault has hit `target`."""
        return self._struck.setdefault(target, asyncio.Event())

    async def disarm(self) -> None:
        """No more faults, and connections are taken again."""
        self._faults.clear()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever is behind or before us may leave at any time; so do we.
        with suppress(OSError, asyncio.IncompleteReadError, _Broken):
            try:
                while True:
                    await self._exchange(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            finally:
                writer.close()

    async def _exchange(
        self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = request.split(b" ", 2)[1].decode()
        fault = self._faults.get(target)
        self.log.append(target)
        wanted = re.search(rb"\r\nrange: bytes=(\d+)-", request, re.I)
        start = int(wanted[1]) if wanted else 0
        if fault is not None and start >= fault.after and fault.kind in _INSTEAD:
            self._hit(target, fault)
            await self._instead(fault, reader, writer)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            far_writer.write(request)
            head = await far_reader.readuntil(b"\r\n\r\n")
            announced = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
            length = int(announced[1]) if announced and not request.startswith(b"HEAD") else 0
            body = await far_reader.readexactly(length)
        finally:
            far_writer.close()
        if fault is None or not start <= fault.after < start + length:
            writer.write(head + body)
            await writer.drain()
            return
        self._hit(target, fault)
        await self._damage(fault, head, body, fault.after - start, reader, writer)

    def _hit(self, target: str, fault: Fault) -> None:
        self.hits.append((target, fault.kind))
        self.struck(target).set()

    async def _instead(
        self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers by the fault alone."""
        if fault.kind == "refused":
            self._refuse()
            raise _Broken
        kind, body = ("text/html", _HTML) if fault.kind == "html" else ("text/plain", b"no\n")
        status = "200" if fault.kind == "html" else fault.kind
        writer.write(
            f"HTTP/1.1 {status} As Told\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()

    async def _damage(
        self,
        fault: Fault,
        head: bytes,
        body: bytes,
        cut: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Answers, and goes wrong after `cut` bytes of this body."""
        match fault.kind:
            case "corrupt":
                writer.write(head + body[:cut] + bytes([body[cut] ^ 0xFF]) + body[cut + 1 :])
                await writer.drain()
            case "truncate":
                length = b"\r\nContent-Length: %d" % cut
                head = re.sub(rb"\r\ncontent-length: \d+", length, head, flags=re.I)
                # A Range that was granted would give it away; a server that lies so, lies well.
                writer.write(head + body[:cut])
                await writer.drain()
            case "slow":
                writer.write(head + body[:cut])
                rest = body[cut:]
                step = len(rest) // _SLOW_PIECES + 1
                for begin in range(0, len(rest), step):
                    await asyncio.sleep(_SLOW_PAUSE)
                    writer.write(rest[begin : begin + step])
                    await writer.drain()
            case "stall":
                writer.write(head + body[:cut])
                await writer.drain()
                # Nothing more until the client leaves, which it must not do by sending bytes.
                await reader.read(1)
                raise _Broken
            case kind:
                writer.write(head + body[:cut])
                await writer.drain()
                if kind == "refused":
                    self._refuse()
                elif kind != "close":
                    reset(writer)
                raise _Broken

    def _refuse(self) -> None:
        """Takes no more connections, and resets those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._tasks.values()):
            reset(writer)


# What may come in place of an answer.
_INSTEAD: frozenset[Kind] = frozenset({"refused", "500", "503", "403", "404", "html"})


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection by RST, at once."""
    link = writer.get_extra_info("socket")
    if link is not None:
        # Lingering for no time makes the kernel send RST.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
