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
import hashlib
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from tests.support.caches import CACHE_INFO, MadePath
from tests.support.fault_proxy import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.matrix import Fault, Place

_HTML = b"<!DOCTYPE html><html><body>Welcome to the hotel's network</body></html>"
_PIECE = 64 << 10
# A slow body comes in so many pieces.
_SLOW_PIECES = 10
_LOOP = "/loop"
# A connection that asks for one, in /proc/net/tcp.
_SYN_SENT = "02"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`slow` is for how many seconds a slow answer keeps its client waiting."""

    fault: Fault | None
    place: Place
    slow: float = 0.0


class _Broken(Exception):
    """The connection is not to be used any longer."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    start: int
    condition: str | None


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class Cache:
    """Serves `path` over HTTP/1.1, with ranges."""

    def __init__(self, path: MadePath, trouble: Trouble | None = None) -> None:
        self.port = 0
        # How often the fault struck, as far as a server can see that.
        self.hits = 0
        self.struck = asyncio.Event()
        # Targets in the order in which they were asked for.
        self.log: list[str] = []
        self._trouble = trouble
        self._fault = None if trouble is None else trouble.fault
        self._winner: Cache | None = None
        self._path = path
        self._files = {
            "/nix-cache-info": _File(CACHE_INFO, "text/x-nix-cache-info"),
            path.narinfo_target: _File(path.text, "text/x-nix-narinfo"),
            path.nar_target: _File(path.nar, "application/x-nix-nar"),
        }
        self._target = self._cut = None
        if trouble is not None:
            at_narinfo = trouble.place == "narinfo"
            self._target = path.narinfo_target if at_narinfo else path.nar_target
            length = len(self._files[self._target].body)
            self._cut = 1000 if trouble.place == "NAR, start" else length // 2
            if (spoil := _SPOILT.get(trouble.fault)) is not None:
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
            while not _is_knocked_at(self.port):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        elif self._fault != "refused":
            # Whoever is refused leaves no trace here; but he is, before anybody is answered.
            await self.struck.wait()

    def _strike(self) -> None:
        self.hits += 1
        self.struck.set()

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
                    request = _parse(await reader.readuntil(b"\r\n\r\n"))
                    self.log.append(request.target)
                    await self._answer(request, reader, writer)
            finally:
                writer.close()

    async def _answer(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._winner is not None and request.target == self._path.narinfo_target:
            await self._wait_for(self._winner, reader)
        if request.target == _LOOP:
            await _send(writer, "302 Found", b"", {"Location": str(self._target)})
        elif request.target not in self._files:
            await _send(writer, "404 Not Found", b"no\n", {})
        elif request.target == self._target and self._fault is not None:
            await self._fail(request, reader, writer)
        else:
            leaves = self._fault in _UNREACHABLE and self._is_described()
            if leaves:
                await self._vanish()
            await self._send_file(request, writer)
            if leaves or request.target == self._target:
                self._strike()

    async def _wait_for(self, winner: Cache, reader: asyncio.StreamReader) -> None:
        """Lets `winner` be first. Where its narinfo is good, that is until the client has it."""
        trouble = winner._trouble
        assert trouble is not None
        if trouble.place == "narinfo":
            await winner.met()
        elif not winner.struck.is_set():
            await reader.read(1)
            raise _Broken

    def _is_described(self) -> bool:
        """Whether the NAR is what comes next."""
        place = None if self._trouble is None else self._trouble.place
        asked = {"/nix-cache-info", self._path.narinfo_target}
        return place == "NAR, start" and asked <= set(self.log)

    async def _fail(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        trouble = self._trouble
        assert trouble is not None and self._cut is not None
        if self._fault in _SPOILT:
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
        request: _Request,
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
        self, request: _Request, trouble: Trouble, writer: asyncio.StreamWriter
    ) -> None:
        match self._fault:
            case "500":
                await _send(writer, "500 Internal Server Error", b"no\n", {})
            case "503 + Retry-After":
                await _send(writer, "503 Service Unavailable", b"no\n", {"Retry-After": "1"})
            case "404":
                await _send(writer, "404 Not Found", b"no\n", {})
            case "403":
                await _send(writer, "403 Forbidden", b"no\n", {})
            case "HTML":
                await _send(writer, "200 OK", _HTML, {"Content-Type": "text/html"})
            case "redirect loop":
                await _send(writer, "302 Found", b"", {"Location": _LOOP})
            case "slow first byte":
                await asyncio.sleep(trouble.slow)
                await self._send_file(request, writer)
            case other:
                raise AssertionError(other)

    async def _send_file(
        self, request: _Request, writer: asyncio.StreamWriter, stop: int | None = None
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
            await _send(writer, "416 Range Not Satisfiable", b"", headers)
            return
        if self._fault in _UNREACHABLE:
            headers["Connection"] = "close"
        part = file.body[start:stop]
        if request.method == "HEAD":
            part = b""
        await _send(writer, status, part, headers, total - start)


def _parse(head: bytes) -> _Request:
    method, target, _ = head.decode("latin-1").split(" ", 2)
    wanted = re.search(rb"\r\nrange: bytes=(\d+)-\r", head, re.I)
    condition = re.search(rb'\r\nif-range: ("[^"]*")', head, re.I)
    start = int(wanted[1]) if wanted else 0
    return _Request(method, target, start, condition[1].decode() if condition else None)


async def _send(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes,
    headers: dict[str, str],
    announced: int | None = None,
) -> None:
    length = len(body) if announced is None else announced
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for begin in range(0, len(body), _PIECE):
        writer.write(body[begin : begin + _PIECE])
        await writer.drain()
    await writer.drain()


def _is_knocked_at(port: int) -> bool:
    """Whether somebody waits for a connection to that port."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(row[2].endswith(f":{port:04X}") and row[3] == _SYN_SENT for row in rows[1:])


def _truncated(path: MadePath, body: bytes, cut: int) -> bytes:
    return body[:cut]


def _corrupted(path: MadePath, body: bytes, cut: int) -> bytes:
    if body == path.text:
        # One digit of the hash is another one: all of it can still be read.
        digit = body.index(b"NarHash: sha256:") + 30
        return body[:digit] + (b"0" if body[digit] != ord("0") else b"1") + body[digit + 1 :]
    return body[:cut] + bytes([body[cut] ^ 0xFF]) + body[cut + 1 :]


def _signed_by_nobody(path: MadePath, body: bytes, cut: int) -> bytes:
    (signature,) = path.narinfo.signatures
    wrong = replace(signature, data=bytes(64))
    return str(replace(path.narinfo, signatures=(wrong,))).encode()


# Faults of what the server has, which it then serves as well as can be.
_SPOILT: dict[Fault | None, Callable[[MadePath, bytes, int], bytes]] = {
    "truncation": _truncated,
    "corruption": _corrupted,
    "wrong signature": _signed_by_nobody,
}
_UNREACHABLE: frozenset[Fault | None] = frozenset({"black hole", "refused"})
_IN_THE_BODY: frozenset[Fault | None] = frozenset({"reset", "slow body", "stall"})
