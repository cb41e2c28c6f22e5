"""A daemon that answers as a test tells it to, for better or worse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from tests.rpc.client.support import peer_at
from tvixstore.rpc.client import Peer
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.methods import Method

Answer = Callable[["Stream[Any, Any]"], Awaitable[None]]
Script = Mapping[Method[Any, Any], Answer]


class Scripted:
    """As grpclib wants its services: each method by all of its names."""

    def __init__(self, script: Script) -> None:
        self._script = script
        # The calls that came, by the names they were made by.
        self.calls: list[str] = []

    def __mapping__(self) -> dict[str, Handler]:
        return {
            method.path(package): Handler(
                self._noted(method.path(package), answer),
                method.cardinality,
                method.request,
                method.reply,
            )
            for method, answer in self._script.items()
            for package in method.packages
        }

    def _noted(self, path: str, answer: Answer) -> Answer:
        async def serve(stream: Stream[Any, Any]) -> None:
            self.calls.append(path)
            await answer(stream)

        return serve


def says(*replies: object) -> Answer:
    """Takes one request, and sends these."""

    async def answer(stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        for reply in replies:
            await stream.send_message(reply)

    return answer


def looks_up(found: Mapping[Any, list[Any]], key: Callable[[Any], Any] = lambda it: it) -> Answer:
    """Sends what is found by the request, or NOT_FOUND."""

    async def answer(stream: Stream[Any, Any]) -> None:
        request = key(await stream.recv_message())
        if request not in found:
            raise GRPCError(Status.NOT_FOUND, "absent")
        for reply in found[request]:
            await stream.send_message(reply)

    return answer


def fails(status: Status) -> Answer:
    async def answer(stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        raise GRPCError(status, "as told")

    return answer


def stalls(*replies: object, left: asyncio.Event | None = None) -> Answer:
    """Sends these, and then nothing until the client leaves; sets `left` when it does."""

    async def answer(stream: Stream[Any, Any]) -> None:
        try:
            await says(*replies)(stream)
            await asyncio.Event().wait()
        finally:
            if left is not None:
                left.set()

    return answer


def announces(length: int) -> Answer:
    """Begins a message of that length, and waits."""

    async def answer(stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        await stream._stream.send_data(b"\0" + length.to_bytes(4, "big") + b"x")
        await asyncio.Event().wait()

    return answer


def breaks(*replies: object, then: Answer | None = None) -> Answer:
    """Sends these, and breaks the connection off; from the second time on it does `then`."""
    first = True

    async def answer(stream: Stream[Any, Any]) -> None:
        nonlocal first
        if not first and then is not None:
            await then(stream)
            return
        first = False
        await says(*replies)(stream)
        stream._stream._transport.close()
        await asyncio.Event().wait()

    return answer


@asynccontextmanager
async def scripted(script: Script, **settings: Any) -> AsyncIterator[tuple[Peer, Scripted]]:
    """A peer, over TCP, that does as `script` says."""
    service = Scripted(script)
    server = Server([service], codec=WireCodec())
    await server.start("127.0.0.1", 0)
    assert isinstance(server._server, asyncio.Server)
    port = server._server.sockets[0].getsockname()[1]
    try:
        async with peer_at(f"grpc+http://127.0.0.1:{port}", **settings) as peer:
            yield peer, service
    finally:
        server.close()
        await server.wait_closed()
