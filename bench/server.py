"""The servers that are no daemon of ours: ceilings, and upstreams. Each is a process of its own.

    python -m bench.server constant BODY        an aiohttp handler that answers nothing else
    python -m bench.server stream SIZE          an aiohttp handler that streams from memory
    python -m bench.server cache FOLDER RATE RTT
                                                a binary cache over a link of RATE bytes/s (0: as
                                                fast as it goes) and RTT seconds

The port is told on standard output. The link is one for all connections, a connection costs a round
trip, and so does each request. It has no slow start, so it is kinder to short transfers than the
real thing; it is the same link with and without the proxy.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web
from blake3 import blake3

# Pieces as the daemon's: chunks are this long on average.
_PIECE = 256 << 10
# Seconds of a link's time that are made up for when the timer fires late.
_BURST = 0.005
GENERATED = "generated.json"


async def _constant(body: bytes) -> int:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": "text/x-nix-narinfo"})

    return await _listen(answer)


async def _stream(size: int) -> int:
    piece = bytes(_PIECE)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        left = size
        while left:
            await response.write(piece if left >= _PIECE else piece[:left])
            left -= min(left, _PIECE)
        await response.write_eof()
        return response

    return await _listen(answer)


async def _listen(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> int:
    # aiohttp's low-level server, as the daemon uses it: without routes and middlewares.
    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


@dataclass(slots=True)
class _Link:
    rate: float
    rtt: float
    _free: float = 0.0

    async def trip(self) -> None:
        if self.rtt:
            await asyncio.sleep(self.rtt)

    async def carry(self, size: int) -> None:
        """Returns when `size` more bytes have crossed."""
        if not self.rate:
            return
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now - _BURST) + size / self.rate
        if self._free > now:
            await asyncio.sleep(self._free - now)


@dataclass(frozen=True, slots=True)
class Generated:
    """A body that is not in memory: `head`, then `size` bytes that do not compress, then `tail`."""

    seed: str
    size: int
    head: str
    tail: str

    def __len__(self) -> int:
        return len(self.head) // 2 + self.size + len(self.tail) // 2

    def pieces(self) -> Iterator[bytes]:
        yield bytes.fromhex(self.head)
        source = blake3(self.seed.encode())
        for start in range(0, self.size, _PIECE):
            yield source.digest(min(_PIECE, self.size - start), seek=start)
        yield bytes.fromhex(self.tail)


class _Cache:
    def __init__(self, folder: Path, link: _Link) -> None:
        self._link = link
        self._bodies: dict[bytes, bytes | Generated] = {
            f"/{file.relative_to(folder)}".encode(): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        made = json.loads(self._bodies.get(f"/{GENERATED}".encode(), b"{}"))  # type: ignore[arg-type]
        self._bodies |= {target.encode(): Generated(**each) for target, each in made.items()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._link.trip()
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._link.trip()
                await self._answer(head.split(b" ", 2)[1], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client has left.
            return
        finally:
            writer.close()

    async def _answer(self, target: bytes, writer: asyncio.StreamWriter) -> None:
        body = self._bodies.get(target)
        if body is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if isinstance(body, bytes) and len(body) <= _PIECE:
            await self._link.carry(len(head) + len(body))
            writer.write(head + body)
            return
        writer.write(head)
        async for piece in _pieces(body):
            await self._link.carry(len(piece))
            writer.write(piece)
            await writer.drain()


async def _pieces(body: bytes | Generated) -> AsyncIterator[bytes | memoryview]:
    if isinstance(body, Generated):
        for piece in body.pieces():
            yield piece
        return
    view = memoryview(body)
    # What the link carries in half a millisecond, so that connections share it evenly.
    step = _PIECE // 4
    for start in range(0, len(body), step):
        yield view[start : start + step]


async def _cache(folder: Path, rate: float, rtt: float) -> int:
    cache = _Cache(folder, _Link(rate, rtt))
    server = await asyncio.start_server(cache.serve, "127.0.0.1", 0, backlog=1024)
    await server.start_serving()
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _main(role: str, *arguments: str) -> None:
    match role, arguments:
        case "constant", (body,):
            port = await _constant(body.encode())
        case "stream", (size,):
            port = await _stream(int(size))
        case "cache", (folder, rate, rtt):
            port = await _cache(Path(folder), float(rate), float(rtt))
        case _:
            raise SystemExit(__doc__)
    print(port, flush=True)
    # Until the process is ended.
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
