"""Upstreams that take their time: many of them in one process, so that they cost little.

    python -m bench.fakes JSON      a list of fakes; their ports are told on standard output

Each answers a narinfo after its delay, and keeps connections. How many requests came is told at
`/requests`, at once and without being counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

REQUESTS = b"/requests"


@dataclass(frozen=True, slots=True)
class Fake:
    """A cache of the files in `folder`, or of nothing at all.

    It answers after `delay` seconds; of `every` requests one, the last, takes `slow` instead.
    """

    folder: str | None
    delay: float
    slow: float = 0.0
    every: int = 0


class _Upstream:
    def __init__(self, fake: Fake) -> None:
        self.requests = 0
        self._fake = fake
        self._answers = _files(Path(fake.folder)) if fake.folder is not None else {}

    def ask(self, target: bytes) -> tuple[float, bytes]:
        """How long the answer takes, and what it is."""
        if target == REQUESTS:
            return 0.0, _ok(b"%d" % self.requests)
        self.requests += 1
        fake = self._fake
        slow = bool(fake.every) and self.requests % fake.every == 0
        return fake.slow if slow else fake.delay, self._answers.get(target, _ABSENT)


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: _Upstream) -> None:
        self._upstream = upstream
        self._head = b""
        self._answering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        head, self._head = self._head, b""
        delay, answer = self._upstream.ask(head.split(b" ", 2)[1])
        loop = asyncio.get_running_loop()
        self._answering = loop.call_later(delay, self._transport.write, answer)

    def connection_lost(self, error: Exception | None) -> None:
        # Who left does not wait for an answer any more.
        if self._answering is not None:
            self._answering.cancel()


def _files(folder: Path) -> dict[bytes, bytes]:
    """The answers that have them, by target."""
    return {
        f"/{file.relative_to(folder)}".encode(): _ok(file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


async def _listen(fake: Fake) -> int:
    upstream = _Upstream(fake)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(upstream), "127.0.0.1", 0, backlog=1024)
    await server.start_serving()
    _SERVERS.append(server)
    port: int = server.sockets[0].getsockname()[1]
    return port


# A server that nobody holds is closed.
_SERVERS: list[asyncio.Server] = []


async def _main(fakes: list[Fake]) -> None:
    print(json.dumps([await _listen(fake) for fake in fakes]), flush=True)
    # Until the process is ended.
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main([Fake(**each) for each in json.loads(sys.argv[1])]))
