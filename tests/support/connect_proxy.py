"""A forward proxy on loopback: CONNECT tunnels, and plain requests in absolute form.

    async with ConnectProxy() as proxy:
        …proxy.url…
        assert proxy.log[0].startswith("CONNECT cache.example:443")

`routes` sends a host to where the test has it, so that names that do not exist can be proxied.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass(eq=False)
class ConnectProxy:
    """`login` (`user:password`) is demanded if given; `refuse` is a status for every CONNECT."""

    login: str | None = None
    refuse: int | None = None
    # `host:port` as the client asked for it, to the port on loopback that stands in for it.
    routes: dict[str, int] = field(default_factory=dict)
    # The request line of every request.
    log: list[str] = field(default_factory=list)
    url: str = ""
    port: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, _, rest = head.partition("\r\n")
            self.log.append(line)
            method, target, _ = line.split(" ")
            if self.login is not None and self._login_in(rest) != self.login:
                await _refuse(writer, 407)
            elif method == "CONNECT" and self.refuse is not None:
                await _refuse(writer, self.refuse)
            elif method == "CONNECT":
                await self._tunnel(target, b"", reader, writer, b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                parts = urlsplit(target)
                wanted = target[target.index(parts.netloc) + len(parts.netloc) :]
                request = f"{method} {wanted} HTTP/1.1\r\nConnection: close\r\n{rest}"
                host = f"{parts.hostname}:{parts.port or 80}"
                await self._tunnel(host, request.encode("latin-1"), reader, writer, b"")
        except (OSError, asyncio.IncompleteReadError):
            # Either side left: that is what tunnels do.
            return
        finally:
            writer.close()

    @staticmethod
    def _login_in(headers: str) -> str | None:
        for header in headers.split("\r\n"):
            name, _, value = header.partition(": ")
            if name.lower() == "proxy-authorization":
                return base64.b64decode(value.removeprefix("Basic ")).decode()
        return None

    async def _tunnel(
        self,
        target: str,
        first: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        greeting: bytes,
    ) -> None:
        host, _, port = target.rpartition(":")
        if target in self.routes:
            host, port = "127.0.0.1", str(self.routes[target])
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(greeting)
            far_writer.write(first)
            pumps = [
                asyncio.create_task(_pump(reader, far_writer)),
                asyncio.create_task(_pump(far_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 << 10):
        writer.write(data)
        await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
