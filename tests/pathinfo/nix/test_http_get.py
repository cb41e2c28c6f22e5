"""How a GET goes over a connection, byte by byte: what is sent, and which connections are kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pathinfo.nix.reached import HASH, NARINFO, reach
from tests.support.certificates import make_authority
from tests.support.until import until
from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.http_client import USER_AGENT
from tvixstore.pathinfo.nix.http_upstream import HttpUpstream
from tvixstore.pathinfo.nix.upstream import Resume, Upstream

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext"


@dataclass
class RawServer:
    """Answers with `answers` in turn, to the letter; an empty one closes the connection."""

    answers: list[bytes]
    closes: bool = False
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                writer.write(answer)
                if self.closes or not answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client has left.
            return
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def answering(*answers: bytes, closes: bool = False) -> AsyncIterator[RawServer]:
    server = RawServer(list(answers), closes)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


def kept_by(upstream: Upstream) -> list[ResponseHandler]:
    """The connections that nobody uses."""
    assert isinstance(upstream, HttpUpstream)
    session = upstream._client._open_session()
    assert session.connector is not None
    return [protocol for kept in session.connector._conns.values() for protocol, _ in kept]


async def test_a_request_is_a_line_and_a_few_headers() -> None:
    async with answering(ABSENT) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) is None
        line, *headers = server.heads[0].removesuffix(b"\r\n\r\n").split(b"\r\n")
        assert line == f"GET {NARINFO} HTTP/1.1".encode()
        assert sorted(headers) == [
            b"Accept-Encoding: identity",
            b"Accept: */*",
            f"Host: 127.0.0.1:{server.port}".encode(),
            f"User-Agent: {USER_AGENT}".encode(),
        ]


async def test_a_kept_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    async with answering(ABSENT, b"", FOUND) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) is None
        assert await upstream.narinfo(HASH) == "text"
        assert (len(server.heads), server.connections) == (3, 2)


async def test_a_connection_is_made_anew_once_and_no_more() -> None:
    async with answering(b"", b"", FOUND) as server, reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="closed the connection without an answer"):
            await upstream.narinfo(HASH)
        assert server.connections == 2


async def test_early_hints_are_no_answer() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    async with answering(hint + hint + FOUND, ABSENT) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == "text"
        assert await upstream.narinfo(HASH) is None
        assert server.connections == 1


async def test_a_connection_that_the_server_ends_is_not_kept() -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntext"
    async with answering(last, FOUND) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == "text"
        assert await upstream.narinfo(HASH) == "text"
        assert server.connections == 2


async def test_what_nobody_asked_for_answers_no_other_question() -> None:
    async with answering(FOUND + FOUND, ABSENT) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == "text"
        assert await upstream.narinfo(HASH) is None
        assert server.connections == 2


@pytest.mark.parametrize("proxied", [False, True])
async def test_what_comes_while_nobody_asks_is_no_answer_to_the_next_question(
    proxied: bool,
) -> None:
    async with (
        answering(FOUND, FOUND) as server,
        reach(server.url, proxy=server.url if proxied else "") as upstream,
    ):
        assert await upstream.narinfo(HASH) == "text"
        server.writers[0].write(ABSENT)
        await until(lambda: any(kept.should_close for kept in kept_by(upstream)))
        assert await upstream.narinfo(HASH) == "text"
        assert server.connections == 2


async def test_a_body_may_end_with_its_connection() -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\ntext"
    async with answering(answer, closes=True) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == "text"


async def test_a_body_in_chunks_is_whole_or_unknown() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole, broken = b"2\r\nte\r\n2\r\nxt\r\n0\r\n\r\n", b"2\r\nte\r\n"
    async with answering(chunked + whole, ABSENT) as server, reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == "text"
        assert await upstream.narinfo(HASH) is None
        assert server.connections == 1
    async with answering(chunked + broken, closes=True) as server, reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="after 2 bytes"):
            await upstream.narinfo(HASH)


async def test_headers_without_end_are_no_answer() -> None:
    endless = b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 16) + b"\r\n\r\n"
    async with answering(endless, endless) as server, reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="not HTTP"):
            await upstream.narinfo(HASH)


async def test_nothing_that_came_from_an_upstream_adds_a_header_to_a_request() -> None:
    async with answering(ABSENT) as server, reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="line break"):
            await upstream.open_nar("nar", Resume(1, '"a"\r\nAuthorization: Basic eA=='))
        assert server.heads == []


async def test_a_status_below_all_others_is_no_early_hint() -> None:
    async with answering(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n") as server:
        async with reach(server.url) as upstream:
            with pytest.raises(Unavailable, match="it answered 0"):
                await upstream.narinfo(HASH)


async def test_a_redirect_to_what_is_no_address_is_unknown() -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://[::1%]x]/\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as server, reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="redirect cannot be followed: its host is not one"):
            await upstream.narinfo(HASH)


async def test_who_waits_for_an_answer_is_told_that_it_was_closed_here() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with (
        listener,
        reach(f"http://127.0.0.1:{port}") as upstream,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(_failure(upstream))
        await asked.wait()
        await upstream.aclose()
    assert "it was closed here" in waiting.result()


async def _failure(upstream: Upstream) -> str:
    with pytest.raises(Unavailable) as raised:
        await upstream.narinfo(HASH)
    return str(raised.value)


class Greeter(asyncio.Protocol):
    """Speaks first: `greeting` comes in one piece with the end of the handshake."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.connections = 0
        self.open = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.connections += 1
        self.open += 1
        transport.write(self.greeting)

    def connection_lost(self, error: Exception | None) -> None:
        self.open -= 1


@pytest.mark.parametrize("greeting", [b"220 mail.example\r\n", ABSENT])
async def test_a_server_that_speaks_first_is_left_alone(tmp_path: Path, greeting: bytes) -> None:
    authority = make_authority(tmp_path / "authority")
    context = authority.server
    # With it, the server has the last word of the handshake.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    greeter = Greeter(greeting)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: greeter, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        async with reach(url, ca_file=authority.ca_file) as upstream:
            with pytest.raises(Unavailable, match="not HTTP: it came before there was a question"):
                await upstream.narinfo(HASH)
        assert greeter.connections == 1
        await until(lambda: not greeter.open)
