"""The load over gRPC: HTTP/2 by hand, so that the client is not what is measured.

Runs as a process of its own, as `bench.client` does. Calls are never looked into: one is right if
as many bytes came as are expected. Windows for what comes are as large as can be; those of the
server are kept to.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import cast

import uvloop

_BUFFER = 1 << 20
_MAX_WINDOW = 2**31 - 1
_PIECE = 256 << 10
_HEADER = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5


@dataclass(slots=True)
class Job:
    """Calls of `path` on 127.0.0.1:`port`, `in_flight` of them at a time over one connection.

    Their requests are `requests` in turn (messages in hex), or else a blob of `put` bytes made of
    `seed` and the number of the call. They go on for `seconds`, or until there were `count`. Each
    is to be answered by `expected` bytes with their prefixes, or by any but none.
    """

    path: str
    port: int
    requests: list[str]
    in_flight: int = 1
    seconds: float = 0.0
    count: int = 0
    put: int = 0
    seed: str = ""
    expected: int = 0


@dataclass(slots=True)
class Outcome:
    """`received` and `sent` are bytes of messages, prefixes included."""

    calls: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Call:
    number: int
    body: memoryview
    window: int
    received: int = 0


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _headers(path: str) -> bytes:
    """One block of literals that touches no table, and so may be sent again and again."""

    def text(value: bytes) -> bytes:
        return bytes([len(value)]) + value

    return (
        b"\x83\x86"
        + (b"\x04" + text(path.encode()))
        + (b"\x01" + text(b"bench"))
        + (b"\x00" + text(b"te") + text(b"trailers"))
        + (b"\x0f\x10" + text(b"application/grpc"))
    )


def _framed(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def _blob(seed: str, size: int) -> bytes:
    """The messages that put a blob of bytes that do not compress."""
    data = random.Random(seed).randbytes(size)
    parts = []
    for start in range(0, size, _PIECE):
        part = data[start : start + _PIECE]
        length, varint = len(part), bytearray()
        while length > 127:
            varint.append(length & 127 | 128)
            length >>= 7
        parts.append(_framed(b"\x0a" + bytes([*varint, length]) + part))
    return b"".join(parts)


class Connection(asyncio.BufferedProtocol):
    """Makes calls until `bodies` or the time is over, and settles `over` then or at a failure."""

    def __init__(self, job: Job, bodies: Iterator[bytes]) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcome = Outcome()
        self._job = job
        self._bodies = bodies
        self._head = _headers(job.path)
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._pending = b""
        self._skip = 0
        self._ends: int | None = None
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._room = self._initial = 65535
        self._frame_size = 16384
        self._unacknowledged = 0
        self._paused = False
        self._settled = False
        self._began = perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of classes of their own.
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(
            ">HIHI", _INITIAL_WINDOW_SIZE, _MAX_WINDOW, _MAX_FRAME_SIZE, (1 << 24) - 1
        )
        window = struct.pack(">I", _MAX_WINDOW - 65535)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, window)
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the server closed the connection"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, count: int) -> None:
        data: memoryview = self._view[:count]
        if self._pending:
            data = memoryview(self._pending + bytes(data))
            self._pending = b""
        try:
            self._take(data)
        except ConnectionError as error:
            self._fail(error)

    def _take(self, data: memoryview) -> None:
        position, size = 0, len(data)
        while True:
            if self._skip:
                skipped = min(self._skip, size - position)
                self._skip -= skipped
                position += skipped
                if self._skip:
                    return
                if self._ends is not None:
                    self._ended(self._ends)
                    self._ends = None
            if size - position < _HEADER:
                break
            length = int.from_bytes(data[position : position + 3], "big")
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5 : position + _HEADER], "big")
            if kind == _DATA:
                self._count(stream, length)
                self._skip = length
                self._ends = stream if flags & _END_STREAM else None
                position += _HEADER
                continue
            if size - position < _HEADER + length:
                break
            payload = bytes(data[position + _HEADER : position + _HEADER + length])
            position += _HEADER + length
            self._control(kind, flags, stream, payload)
        self._pending = bytes(data[position:])

    def _count(self, stream: int, length: int) -> None:
        self._calls[stream].received += length
        self.outcome.received += length
        self._unacknowledged += length
        if self._unacknowledged > _MAX_WINDOW // 4:
            update = struct.pack(">I", self._unacknowledged)
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, update))
            self._unacknowledged = 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _END_STREAM:
                self._ended(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            self._apply(dict(struct.iter_unpack(">HI", payload)))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream == 0:
                self._room += more
            elif stream in self._calls:
                self._calls[stream].window += more
            self._send()
        elif kind in (_RST_STREAM, _GOAWAY):
            raise ConnectionError(f"frame {kind} came: {payload!r}")

    def _apply(self, settings: dict[int, int]) -> None:
        self._transport.write(_frame(_SETTINGS, _ACK, 0))
        self._frame_size = settings.get(_MAX_FRAME_SIZE, self._frame_size)
        grown = settings.get(_INITIAL_WINDOW_SIZE, self._initial) - self._initial
        self._initial += grown
        for call in self._calls.values():
            call.window += grown
        if not self._settled:
            self._settled = True
            self._began = perf_counter()
            for _ in range(self._job.in_flight):
                self._begin()
        self._send()

    def _begin(self) -> None:
        job = self._job
        late = job.seconds and perf_counter() >= self._began + job.seconds
        body = None if late else next(self._bodies, None)
        if body is None:
            if not self._calls and not self.over.done():
                self.outcome.seconds = perf_counter() - self._began
                self.over.set_result(None)
                self._transport.close()
            return
        call = _Call(self._next, memoryview(body), self._initial)
        self._next += 2
        self._calls[call.number] = call
        self.outcome.sent += len(body)
        head = _frame(_HEADERS, _END_HEADERS, call.number, self._head)
        if len(body) <= min(call.window, self._room, self._frame_size):
            self._room -= len(body)
            call.body = call.body[len(body) :]
            self._transport.write(head + _frame(_DATA, _END_STREAM, call.number, body))
        else:
            self._transport.write(head)
            self._send()

    def _send(self) -> None:
        """What the windows allow of the calls that have still something to say."""
        for call in self._calls.values():
            while call.body and not self._paused:
                size = min(len(call.body), call.window, self._room, self._frame_size)
                if not size:
                    break
                part, call.body = call.body[:size], call.body[size:]
                call.window -= size
                self._room -= size
                flags = 0 if call.body else _END_STREAM
                self._transport.write(_frame(_DATA, flags, call.number, bytes(part)))

    def _ended(self, stream: int) -> None:
        call = self._calls.pop(stream)
        if not call.received or self._job.expected not in (0, call.received):
            raise ConnectionError(f"{self._job.path}: {call.received} bytes came")
        self.outcome.calls += 1
        self._begin()

    def _fail(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(error)
        self._transport.abort()


def _bodies(job: Job) -> Iterator[bytes]:
    if job.put:
        # Made before the clock runs.
        return iter([_blob(f"{job.seed} {number}", job.put) for number in range(job.count)])
    bodies = cycle([_framed(bytes.fromhex(request)) for request in job.requests])
    return islice(bodies, job.count or None)


async def run(job: Job) -> Outcome:
    bodies = _bodies(job)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(120 + job.seconds):
        _, connection = await loop.create_connection(
            lambda: Connection(job, bodies), "127.0.0.1", job.port
        )
        await connection.over
    return connection.outcome


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(Job(**json.load(sys.stdin))))
    print(json.dumps(asdict(result)))
