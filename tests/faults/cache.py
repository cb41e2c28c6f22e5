"""A binary cache on loopback with one path and, if it is told so, one fault.

    async with Cache(path, Trouble("stall", "NAR, middle")) as faulty, Cache(path) as healthy:
        healthy.comes_after(faulty)
        …
        assert faulty.hits

Where a fault takes the place of an answer and strikes in the middle of a NAR, the connection breaks
there, and whoever comes back meets the fault: there is no other way to a 404 after half of a body.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from tests.faults.spoilt import SPOILT
from tests.faults.wire import File, Request, is_knocked_at, parse, send
from tests.support.caches import CACHE_INFO, MadePath
from tests.support.fault_proxy import reset

if TYPE_CHECKING:
    from tests.faults.matrix import Fault, Place

_HTML = b"<!DOCTYPE html><html><body>Welcome to the hotel's network</body></html>"
# A slow body comes in so many pieces.
_SLOW_PIECES = 10
_LOOP = "/loop"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`slow` is for how many seconds a slow answer keeps its client waiting."""

    fault: Fault | None
    place: Place
    slow: float = 0.0


class _Broken(Exception):
    """The connection is not to be used any longer."""


class Cache:
    """Serves `path` over HTTP/1.1, with ranges."""

    def __init__(self, path: MadePath, trouble: Trouble | None = None) -> None:
        self.port = 0
        # How often the fault struck, as far as a server can see that.
        self.hits = 0
        self.struck = asyncio.Event()
        # Set when it struck, or when somebody came for the NAR.
        self.chosen = asyncio.Event()
        # Targets in the order in which they were asked for.
        self.log: list[str] = []
        self._trouble = trouble
        self._fault = None if trouble is None else trouble.fault
        self._winner: Cache | None = None
        self._path = path
        self._files = {
            "/nix-cache-info": File(CACHE_INFO, "text/x-nix-cache-info"),
            path.narinfo_target: File(path.text, "text/x-nix-narinfo"),
            path.nar_target: File(path.nar, "application/x-nix-nar"),
        }
        self._target = self._cut = None
        if trouble is not None:
            at_narinfo = trouble.place == "narinfo"
            self._target = path.narinfo_target if at_narinfo else path.nar_target
            length = len(self._files[self._target].body)
            self._cut = 1000 if trouble.place == "NAR, start" else length // 2
            if (spoil := SPOILT.get(trouble.fault)) is not None:
                file = self._files[self._target]
                self._files[self._target] = replace(file, body=spoil(path, file.body, self._cut))
        self._socket: socket.socket | None = None
        self._filler: socket.socket | None = None
        self._broke = False
        self._accepting: asyncio.Task[None] | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def comes_after(self, other: Cache) -> None:
        """Answers for the narinfo no sooner than `other`'s fault has struck."""
        self._winner = other

    async def __aenter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(self._socket))
        if self._trouble is not None and self._trouble.place == "narinfo":
            if self._fault in _UNREACHABLE:
                await self._vanish()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._accepting, *self._serving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for open_one in (self._socket, self._filler):
            if open_one is not None:
                open_one.close()

    async def _vanish(self) -> None:
        """No more connections, from now on: they are refused, or nobody says anything."""
        assert self._socket is not None
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        if self._fault == "refused":
            self._socket.close()
            # Bound, so that nobody else gets the port, and not listening.
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", self.port))
            return
        # Nobody takes a connection any more. There is room for one to wait, and here it is; the
        # kernel says nothing to others.
        self._socket.listen(0)
        self._filler = socket.create_connection(("127.0.0.1", self.port))

    async def met(self) -> None:
        """Returns once the fault has struck."""
        if self._trouble is None or self._trouble.place != "narinfo":
            await self.struck.wait()
        elif self._fault == "black hole":
            # Only the kernel knows, and it tells nobody by itself.
            while not is_knocked_at(self.port):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        elif self._fault != "refused":
            # Whoever is refused leaves no trace here; but he is, before anybody is answered.
            await self.struck.wait()

    def _strike(self) -> None:
        self.hits += 1
        self.struck.set()
        self.chosen.set()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listening)
            reader, writer = await asyncio.open_connection(sock=connection)
            task = asyncio.create_task(self._serve(reader, writer))
            self._serving[task] = writer
            task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks may leave at any time; so may we.
        with suppress(OSError, asyncio.IncompleteReadError, _Broken):
            try:
                while True:
                    request = parse(await reader.readuntil(b"\r\n\r\n"))
                    self.log.append(request.target)
                    await self._answer(request, reader, writer)
            finally:
                writer.close()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._winner is not None and request.target == self._path.narinfo_target:
            await self._wait_for(self._winner)
        if request.target == self._path.nar_target:
            self.chosen.set()
        if request.target == _LOOP:
            await send(writer, "302 Found", b"", {"Location": str(self._target)})
        elif request.target not in self._files:
            await send(writer, "404 Not Found", b"no\n", {})
        elif request.target == self._target and self._fault is not None:
            await self._fail(request, reader, writer)
        else:
            leaves = self._fault in _UNREACHABLE and self._is_described()
            if leaves:
                await self._vanish()
            await self._send_file(request, writer)
            if leaves or request.target == self._target:
                self._strike()

    async def _wait_for(self, winner: Cache) -> None:
        """Lets `winner` be first. Where its narinfo is good, that is until its NAR is wanted: a
        lookup may go on though it has lost."""
        trouble = winner._trouble
        assert trouble is not None
        if trouble.place == "narinfo":
            await winner.met()
        else:
            await winner.chosen.wait()

    def _is_described(self) -> bool:
        """Whether the NAR is what comes next."""
        place = None if self._trouble is None else self._trouble.place
        asked = {"/nix-cache-info", self._path.narinfo_target}
        return place == "NAR, start" and asked <= set(self.log)

    async def _fail(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        trouble = self._trouble
        assert trouble is not None and self._cut is not None
        if self._fault in SPOILT:
            self._strike()
            await self._send_file(request, writer)
        elif self._fault in _IN_THE_BODY:
            await self._go_wrong(request, trouble, reader, writer)
        elif trouble.place == "NAR, middle" and not self._broke:
            self._broke = True
            await self._send_file(request, writer, self._cut)
            if self._fault in _UNREACHABLE:
                await self._vanish()
                self.hits += 1
            self.struck.set()
            reset(writer)
            raise _Broken
        else:
            self._strike()
            await self._instead(request, trouble, writer)

    async def _go_wrong(
        self,
        request: Request,
        trouble: Trouble,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Slow, or silent, or gone from a certain byte of the body on."""
        assert self._cut is not None
        cut = 0 if trouble.place == "NAR, start" else self._cut
        body = self._files[request.target].body
        self._strike()
        if self._fault == "reset" and trouble.place != "NAR, middle":
            reset(writer)
            raise _Broken
        await self._send_file(request, writer, cut)
        if self._fault == "reset":
            reset(writer)
            raise _Broken
        if self._fault == "stall":
            await reader.read(1)
            raise _Broken
        rest = body[max(cut, request.start) :]
        step = len(rest) // _SLOW_PIECES + 1
        for begin in range(0, len(rest), step):
            await asyncio.sleep(trouble.slow / _SLOW_PIECES)
            writer.write(rest[begin : begin + step])
            await writer.drain()

    async def _instead(
        self, request: Request, trouble: Trouble, writer: asyncio.StreamWriter
    ) -> None:
        if self._fault == "slow first byte":
            await asyncio.sleep(trouble.slow)
            await self._send_file(request, writer)
        else:
            await send(writer, *_ANSWERS[self._fault])

    async def _send_file(
        self, request: Request, writer: asyncio.StreamWriter, stop: int | None = None
    ) -> None:
        """The file, or the part that was asked for; of its body nothing from `stop` on."""
        file = self._files[request.target]
        total = len(file.body)
        headers = {
            "ETag": file.etag,
            "Accept-Ranges": "bytes",
            "Content-Type": file.content_type,
        }
        start = request.start if request.condition in (None, file.etag) else 0
        status = "200 OK"
        if start:
            status = "206 Partial Content"
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if start >= total:
            headers["Content-Range"] = f"bytes */{total}"
            await send(writer, "416 Range Not Satisfiable", b"", headers)
            return
        if self._fault in _UNREACHABLE:
            headers["Connection"] = "close"
        part = file.body[start:stop]
        if request.method == "HEAD":
            part = b""
        await send(writer, status, part, headers, total - start)


_UNREACHABLE: frozenset[Fault | None] = frozenset({"black hole", "refused"})
_IN_THE_BODY: frozenset[Fault | None] = frozenset({"reset", "slow body", "stall"})
# What is said in place of an answer.
_ANSWERS: dict[Fault | None, tuple[str, bytes, dict[str, str]]] = {
    "500": ("500 Internal Server Error", b"no\n", {}),
    "503 + Retry-After": ("503 Service Unavailable", b"no\n", {"Retry-After": "1"}),
    "404": ("404 Not Found", b"no\n", {}),
    "403": ("403 Forbidden", b"no\n", {}),
    "HTML": ("200 OK", _HTML, {"Content-Type": "text/html"}),
    "redirect loop": ("302 Found", b"", {"Location": _LOOP}),
}
