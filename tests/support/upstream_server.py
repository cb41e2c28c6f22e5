"""A binary cache that does what the test says: answers, refuses, redirects, stalls, breaks off.

    async with UpstreamServer() as server:
        server.on("/x.narinfo", Reply(status=503), Reply(body=b"…"))   # in turn; the last one stays
        server.on("/nar/x.nar", Reply(body=nar, end="reset", after=1000))
        server.serve_directory(path)                                   # for every other target
        …server.url…
        assert [seen.target for seen in server.log] == […]

Every request is logged before it is answered, its target to the letter. What is not scripted is
404.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import unquote

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from multidict import CIMultiDictProxy

SLICE = 64 << 10


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived; `target` is what stood in the request line, query included."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer.

    `end` says how it ends once `after` bytes of the body went out: `whole` sends it all, `close`
    and `reset` break the connection, `stall` says nothing more until the client leaves. `announced`
    is the Content-Length to claim (`None`: the body's; -1: none, chunked). With `ranges`, Range and
    If-Range are honoured. `before` holds the headers back until it is set. `pause` holds the body
    back at `after` until it is set, and goes on from there.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    ranges: bool = False
    before: asyncio.Event | None = None
    pause: asyncio.Event | None = None
    end: Literal["whole", "close", "reset", "stall"] = "whole"
    after: int = 0


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": location})


class _Server(web.Server):
    """Knows which connections are open, and when one has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open: set[web.RequestHandler] = set()
        self.accepted = 0
        self.left = asyncio.Event()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.open.add(handler)
        self.accepted += 1

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self.open.discard(handler)
        self.left.set()


Script = Callable[[Seen], Reply]


class UpstreamServer:
    """A scriptable HTTP server on a free loopback port; with `tls`, an HTTPS one."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log: list[Seen] = []
        self.url = ""
        self.port = 0
        self._tls = tls
        self._scripts: dict[str, list[Reply | Script]] = {}
        self._fallback: Script = lambda _: Reply(status=404)
        self._arrived = asyncio.Condition()
        self._server = _Server(self._answer, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        # Without waiting for handlers: those that stall are cancelled.
        await self._server.shutdown(0)
        await self._runner.cleanup()

    def on(self, target: str, *replies: Reply | Script) -> None:
        """Answers `target` (with its query, or the path alone for any query) by `replies` in turn.

        The last one stays. A reply may be a function of the request.
        """
        self._scripts[target] = list(replies)

    def otherwise(self, script: Script) -> None:
        """Answers whatever `on` says nothing of."""
        self._fallback = script

    def serve_directory(self, root: Path) -> None:
        """Serves the files below `root`, with ranges, wherever `on` says nothing."""

        def from_file(seen: Seen) -> Reply:
            file = root / unquote(seen.path).lstrip("/")
            if not file.is_file():
                return Reply(status=404)
            etag = f'"{file.stat().st_mtime_ns:x}-{file.stat().st_size:x}"'
            return Reply(body=file.read_bytes(), headers={"ETag": etag}, ranges=True)

        self.otherwise(from_file)

    def seen(self, path: str) -> list[Seen]:
        """The requests for `path`, whatever their queries."""
        return [seen for seen in self.log if seen.path == path]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.open)

    @property
    def accepted(self) -> int:
        """How many connections there were, open or not."""
        return self._server.accepted

    async def requested(self, path: str, times: int = 1) -> None:
        """Returns once `path` was asked for `times` times."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen(path)) >= times)

    async def abandoned(self) -> None:
        """Returns once every connection is closed."""
        while self.connections:
            self._server.left.clear()
            await self._server.left.wait()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, request.headers)
        async with self._arrived:
            self.log.append(seen)
            self._arrived.notify_all()
        script = self._scripts.get(seen.target) or self._scripts.get(seen.path) or [self._fallback]
        reply = script.pop(0) if len(script) > 1 else script[0]
        return await _send(request, reply(seen) if callable(reply) else reply)


async def _send(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    if reply.before is not None:
        await reply.before.wait()
    status, body, headers = reply.status, reply.body, dict(reply.headers)
    if reply.ranges:
        status, body, headers = _ranged(request, reply)
    if reply.end in ("close", "reset") and not reply.after:
        _break(request, reply.end)
        return web.Response()
    response = web.StreamResponse(status=status, headers=headers)
    if reply.announced == -1:
        response.enable_chunked_encoding()
    elif reply.announced is not None:
        response.content_length = reply.announced
    else:
        response.content_length = len(body)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    cut = len(body) if reply.end == "whole" and reply.pause is None else reply.after
    await _write(response, body[:cut])
    if reply.pause is not None:
        await reply.pause.wait()
        await _write(response, body[cut:])
    if reply.end == "stall":
        await asyncio.Event().wait()
    if reply.end in ("close", "reset"):
        _break(request, reply.end)
        return response
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, body: bytes) -> None:
    for start in range(0, len(body), SLICE):
        await response.write(body[start : start + SLICE])


def _break(request: web.BaseRequest, how: str) -> None:
    transport = request.transport
    assert transport is not None
    if how == "reset":
        # Lingering for no time makes the kernel send RST.
        link: socket.socket = transport.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


def _ranged(request: web.BaseRequest, reply: Reply) -> tuple[int, bytes, dict[str, str]]:
    """What an honest server makes of Range (`bytes=N-` and `bytes=N-M`) and If-Range."""
    headers = {"Accept-Ranges": "bytes", **reply.headers}
    validators = (reply.headers.get("ETag"), reply.headers.get("Last-Modified"))
    wanted, condition = request.headers.get("Range"), request.headers.get("If-Range")
    if wanted is None or (condition is not None and condition not in validators):
        return reply.status, reply.body, headers
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    total = len(reply.body)
    start, stop = int(first), min(int(last) + 1, total) if last else total
    if start >= total:
        return 416, b"", {**headers, "Content-Range": f"bytes */{total}"}
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
    return 206, reply.body[start:stop], headers
