"""The load: HTTP/1.1 over raw connections, so that the client is not what is measured.

Runs as a process of its own: a job as JSON on standard input, what came of it as JSON on standard
output. Each connection follows a plan, a generator that yields requests and is sent replies.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Literal, TypeAlias, cast

import uvloop

_BUFFER = 1 << 20


@dataclass(slots=True)
class Job:
    """What to ask of 127.0.0.1:`port`, over so many connections.

    `hammer` asks for `targets` in turn for `seconds`; `each` for each of them once; `paths` takes
    them for hashes of store paths, and asks for each one's narinfo and then its NAR. These two may
    take a minute and `seconds`.
    """

    kind: Literal["hammer", "each", "paths"]
    port: int
    targets: list[str]
    connections: int = 1
    seconds: float = 0.0
    # As the password of Basic, as Nix sends it; of a `hammer` alone.
    token: str | None = None
    # What every answer has to be.
    status: int = 200


@dataclass(slots=True)
class Outcome:
    """`waits` are the seconds from each request for a NAR (any target) to its first body byte."""

    requests: int = 0
    received: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Request:
    head: bytes
    # Whether the body is wanted, and not only counted.
    keep: bool = False


@dataclass(slots=True)
class Reply:
    size: int
    wait: float
    body: bytes


Plan: TypeAlias = Generator[Request, Reply, None]


class Connection(asyncio.BufferedProtocol):
    """Follows one plan, and settles `over` at its end, or when anything is not as it should be."""

    def __init__(self, plan: Plan, status: int) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._plan = plan
        self._status = status
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._head = b""
        self._size = self._left = 0
        self._kept: list[bytes] = []
        self._asked = self._wait = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of classes of their own.
        self._transport = cast("asyncio.Transport", transport)
        self._ask(next(self._plan, None))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server closed the connection"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, count: int) -> None:
        if not self._left:
            self._head += self._view[:count]
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._head = b""
            try:
                self._size = self._left = _length(head, self._status)
            except ValueError as error:
                self._end(error)
                return
            count = len(rest)
            data = rest
        else:
            data = bytes(self._view[:count]) if self._request.keep else b""
        # A reply without a body is there with its head.
        if (count or not self._size) and self._left == self._size:
            self._wait = perf_counter() - self._asked
        self._left -= count
        if self._request.keep:
            self._kept.append(data)
        if not self._left:
            self._replied()

    def _replied(self) -> None:
        kept, self._kept = b"".join(self._kept), []
        try:
            self._ask(self._plan.send(Reply(self._size, self._wait, kept)))
        except StopIteration:
            self._ask(None)

    def _ask(self, request: Request | None) -> None:
        if request is None:
            self._end(None)
            return
        self._request = request
        self._asked = perf_counter()
        self._transport.write(request.head)

    def _end(self, error: Exception | None) -> None:
        if not self.over.done():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)
        self._transport.close()


def _length(head: bytes, status: int) -> int:
    """The Content-Length of a reply that is what was asked for."""
    lines = head.split(b"\r\n")
    if not lines[0].startswith(b"HTTP/1.1 %d" % status):
        raise ValueError(f"not {status}: {head.decode(errors='replace')}")
    for line in lines:
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    raise ValueError(f"no Content-Length: {head.decode(errors='replace')}")


def request_for(target: str, *, keep: bool = False, token: str | None = None) -> Request:
    lines = [f"GET {target} HTTP/1.1", "Host: bench"]
    if token is not None:
        login = base64.b64encode(f"bench:{token}".encode()).decode()
        lines.append(f"Authorization: Basic {login}")
    return Request("\r\n".join([*lines, "", ""]).encode(), keep)


def _hammer(requests: list[Request], start: int, outcome: Outcome, until: float) -> Plan:
    position = start % len(requests)
    while perf_counter() < until:
        _count(outcome, (yield requests[position]))
        position = (position + 1) % len(requests)


def _each(targets: Iterator[str], outcome: Outcome) -> Plan:
    for target in targets:
        reply = yield request_for(target)
        _count(outcome, reply)
        outcome.waits.append(reply.wait)


def _paths(hashes: Iterator[str], outcome: Outcome) -> Plan:
    for digits in hashes:
        narinfo = yield request_for(f"/{digits}.narinfo", keep=True)
        _count(outcome, narinfo)
        reply = yield request_for(f"/{url_in(narinfo.body)}")
        _count(outcome, reply)
        outcome.waits.append(reply.wait)


def url_in(narinfo: bytes) -> str:
    return narinfo.partition(b"URL: ")[2].partition(b"\n")[0].decode()


def _count(outcome: Outcome, reply: Reply) -> None:
    outcome.requests += 1
    outcome.received += reply.size


async def run(job: Job) -> Outcome:
    outcome = Outcome()
    began = perf_counter()
    if job.kind == "hammer":
        requests = [request_for(target, token=job.token) for target in job.targets]
        apart = max(1, len(requests) // job.connections)
        plans = [
            _hammer(requests, number * apart, outcome, began + job.seconds)
            for number in range(job.connections)
        ]
    else:
        # Shared: whichever connection is free takes the next.
        targets = iter(job.targets)
        plan = _each if job.kind == "each" else _paths
        plans = [plan(targets, outcome) for _ in range(job.connections)]
    loop = asyncio.get_running_loop()

    def follow(plan: Plan) -> Callable[[], Connection]:
        return lambda: Connection(plan, job.status)

    async with asyncio.timeout(60 + job.seconds):
        opened = await asyncio.gather(
            *(loop.create_connection(follow(plan), "127.0.0.1", job.port) for plan in plans)
        )
        await asyncio.gather(*(connection.over for _, connection in opened))
    outcome.seconds = perf_counter() - began
    return outcome


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(Job(**json.load(sys.stdin))))
    print(json.dumps(asdict(result)))
